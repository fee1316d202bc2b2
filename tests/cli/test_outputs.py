"""What -o does to the files around it: modes, links, long names, leftovers, several files at
once, closed streams.
"""

import fcntl
import os
import resource
import signal
import subprocess
import time

import numpy as np
import pytest
from conftest import DEMO, LIK, environment, fails, run, unit

# Runs that take long enough to be looked at while they write.
SLOW = ("--all", "--device", "ref", "-j1")


@pytest.fixture
def long_run(tmp_path, rng):
    """Arguments of a run that takes seconds, its inputs in a folder of their own."""
    folder = tmp_path / "in"
    folder.mkdir()
    np.save(folder / "q.npy", unit(rng, 24, 32, 128))
    np.save(folder / "d.npy", unit(rng, 50, 100, 128))
    return ("score", folder / "q.npy", folder / "d.npy", *SLOW)


def start(args, folder):
    """Starts lik and waits for its temporary file, which is returned too."""
    before = set(folder.iterdir())
    process = subprocess.Popen([LIK, *map(str, args)], stderr=subprocess.PIPE, env=environment())
    for _ in range(1000):
        made = set(folder.iterdir()) - before
        if made:
            return process, made.pop()
        time.sleep(0.01)
    process.kill()
    raise AssertionError("no temporary file appeared")


def names(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444])
@pytest.mark.parametrize("name", ["out.tsv", "out.npy"])
def test_mode_is_kept(small, mode, name):
    _, _, folder = small
    (folder / name).write_text("old")
    (folder / name).chmod(mode)
    run("score", folder / "q.npy", folder / "d.npy", "-o", folder / name)
    assert (folder / name).stat().st_mode & 0o7777 == mode and (folder / name).read_bytes() != b"old"


def test_mode_of_all_outputs(small):
    """Each file keeps its own; a new one gets what the umask leaves."""
    _, _, folder = small
    (folder / "s.ids.npy").write_text("old")
    (folder / "s.ids.npy").chmod(0o600)
    before = os.umask(0o027)
    try:
        run("score", folder / "q.npy", folder / "d.npy", "-o", folder / "s.npy")
    finally:
        os.umask(before)
    assert [(folder / n).stat().st_mode & 0o777 for n in ("s.npy", "s.ids.npy")] == [0o640, 0o600]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_owner_is_kept(small):
    _, _, folder = small
    (folder / "out.tsv").write_text("old")
    os.chown(folder / "out.tsv", 1234, 2345)
    (folder / "out.tsv").chmod(0o640)
    run("score", folder / "q.npy", folder / "d.npy", "-o", folder / "out.tsv")
    info = (folder / "out.tsv").stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (1234, 2345, 0o640)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_owner_that_cannot_be_kept(small):
    """The rights of a group that is lost do not pass to another one."""
    _, _, folder = small
    folder.chmod(0o777)
    for path in folder.parents:
        if not path.stat().st_mode & 0o001:
            path.chmod(0o711)
    (folder / "out.tsv").write_text("old")
    os.chown(folder / "out.tsv", 1234, 2345)
    (folder / "out.tsv").chmod(0o664)
    subprocess.run(
        [LIK, "score", folder / "q.npy", folder / "d.npy", "-o", folder / "out.tsv"],
        user=4321,
        group=4321,
        extra_groups=[],
        check=True,
        env=environment(),
    )
    info = (folder / "out.tsv").stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (4321, 4321, 0o644)


def test_links_are_followed(small):
    """To a file, to a file that is not there yet, over several links, relative and absolute; a
    circle is refused.
    """
    _, _, folder = small
    args = ("score", folder / "q.npy", folder / "d.npy", "-o")
    expected = run(*args[:-1])[0]
    (folder / "deep").mkdir()
    (folder / "link").symlink_to("deep/second")
    (folder / "deep/second").symlink_to("third")
    (folder / "deep/third").symlink_to(folder / "real.tsv")
    for _ in range(2):  # dangling, then not
        assert run(*args, folder / "link")[0] == ""
        assert (folder / "real.tsv").read_text() == expected and (folder / "real.tsv").is_file()
        assert all((folder / n).is_symlink() for n in ("link", "deep/second", "deep/third"))
    assert run(*args, "link", cwd=folder)[0] == ""
    (folder / "nowhere").symlink_to("missing/file")
    fails(3, "cannot write", args=(*args, folder / "nowhere"))
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    fails(3, "symbolic links", args=(*args, folder / "a"))
    (folder / "s.npy").symlink_to("deep/scores.npy")
    run(*args, folder / "s.npy")
    assert np.load(folder / "deep/scores.npy").shape == np.load(folder / "s.ids.npy").shape
    assert names(folder / "deep") == ["scores.npy", "second", "third"]


def test_names_of_any_length(small):
    _, _, folder = small
    args = ("score", folder / "q.npy", folder / "d.npy")
    expected = run(*args)[0]
    for name in ("a", "n" * 250, "n" * 255, "\u00e9" * 127):
        run(*args, "-o", folder / name)
        assert (folder / name).read_text() == expected
        (folder / name).unlink()
    run(*args, "-o", folder / ("n" * 247 + ".npy"))  # the name with .ids.npy has 255 bytes
    assert np.load(folder / ("n" * 247 + ".ids.npy")).shape == (3, 10)
    assert len(names(folder)) == 4
    fails(3, "File name too long", args=(*args, "-o", folder / ("n" * 251 + ".npy")))
    fails(3, "File name too long", args=(*args, "-o", folder / ("n" * 256)))
    fails(3, "Is a directory", args=(*args, "-o", f"{folder}/"))
    fails(3, "cannot write", args=(*args, "-o", f"{folder}/new/"))
    assert len(names(folder)) == 4


def test_a_dead_run_is_swept_up(long_run, small):
    """What killed runs leave goes with the next one that writes the same file, and only
    that.
    """
    _, _, folder = small
    before = names(folder)
    runs = [start((*long_run, "-o", folder / "s.npy"), folder) for _ in range(3)]
    for process, temporary in runs:
        process.kill()
        process.communicate(timeout=60)
        assert temporary.exists() and temporary.name.startswith(".lik-s.npy-")
    (folder / ".lik-s.npy-1.old").write_text("of a run that was killed while it replaced two files")
    run("score", folder / "q.npy", folder / "d.npy", "-o", folder / "other.npy")
    assert temporary.exists()
    run("score", folder / "q.npy", folder / "d.npy", "-o", folder / "s.npy")
    assert names(folder) == sorted([*before, "other.npy", "other.ids.npy", "s.npy", "s.ids.npy"])


def test_a_living_run_is_left_alone(long_run, small):
    """Two runs that write the same file do not disturb each other; the later one counts."""
    _, _, folder = small
    process, temporary = start((*long_run, "-o", folder / "s.npy"), folder)
    run("score", folder / "q.npy", folder / "d.npy", "--all", "-o", folder / "s.npy")
    assert np.load(folder / "s.npy").shape == (3, 20) and temporary.exists()
    assert process.communicate(timeout=120) == (None, b"") and process.returncode == 0
    assert np.load(folder / "s.npy").shape == (24, 50) and not temporary.exists()
    assert not [n for n in names(folder) if n.startswith(".lik")]


def test_a_stranger_is_left_alone(small):
    """A file that only looks like a leftover: another user's, a link, a folder, one that is in
    use.
    """
    _, _, folder = small
    args = ("score", folder / "q.npy", folder / "d.npy", "-o", folder / "s.tsv")
    (folder / "precious").write_text("precious")
    (folder / ".lik-s.tsv-0").symlink_to("precious")
    (folder / ".lik-s.tsv-1").mkdir()
    (folder / ".lik-s.tsv-2").write_text("in use")
    strangers = 3
    with open(folder / ".lik-s.tsv-2") as used:
        fcntl.flock(used, fcntl.LOCK_EX)
        if os.geteuid() == 0:
            (folder / ".lik-s.tsv-3").write_text("another's")
            os.chown(folder / ".lik-s.tsv-3", 1234, 1234)
            strangers = 4
        run(*args)
    assert (folder / "precious").read_text() == "precious" and (
        folder / ".lik-s.tsv-2"
    ).read_text() == "in use"
    assert sum(n.startswith(".lik") for n in names(folder)) == strangers


def test_a_locked_folder(small):
    """Several files wait for whoever has locked the folder, as a run does that replaces them;
    one does not.
    """
    _, _, folder = small
    args = ("score", folder / "q.npy", folder / "d.npy", "-o")
    fd = os.open(folder, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    run(*args, folder / "one.tsv")
    process = subprocess.Popen([LIK, *map(str, args), folder / "s.npy"], env=environment())
    time.sleep(0.5)
    assert process.poll() is None and not (folder / "s.npy").exists()
    os.close(fd)
    assert process.wait(timeout=60) == 0 and (folder / "s.npy").exists() and (folder / "s.ids.npy").exists()
    fd = os.open(folder, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    # By whoever keeps it, such as flock(1) around the command: not waited for.
    run(*args, folder / "kept.npy")
    os.close(fd)


def test_leftovers_with_gaps_and_long_names(small):
    """All that dead runs left of a file goes, whatever their numbers; names that are cut are
    told apart.
    """
    _, _, folder = small
    args = ("score", folder / "q.npy", folder / "d.npy", "-o")
    for name in (".lik-x.npy-5", ".lik-x.npy-2", ".lik-x.npy-7.old"):
        (folder / name).write_text("dead")
    run(*args, folder / "x.npy")
    assert names(folder) == ["d.npy", "q.npy", "x.ids.npy", "x.npy"]
    long = [folder / ("n" * 210 + end) for end in ("a.tsv", "b.tsv")]
    for path in long:
        process = subprocess.Popen([LIK, *map(str, args), path], env=environment())
        assert process.wait(timeout=60) == 0
    assert all(path.exists() for path in long) and len(names(folder)) == 6


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's file")
def test_what_a_stranger_leaves_gives_no_rights(small):
    _, _, folder = small
    aside = folder / ".lik-x.tsv-0.old"
    aside.write_text("a stranger's")
    aside.chmod(0o666)
    os.chown(aside, 1234, 1234)
    run("score", folder / "q.npy", folder / "d.npy", "-o", folder / "x.tsv")
    info = (folder / "x.tsv").stat()
    assert info.st_uid == os.geteuid() and not info.st_mode & 0o022 and aside.exists()


def test_ids_of_another_run(small):
    """--all writes no ids: those that lie there are of other scores, and that is said."""
    _, _, folder = small
    args = ("score", folder / "q.npy", folder / "d.npy", "-o", folder / "x.npy")
    run(*args, "-k", "2")
    _, err = run(*args, "--all")
    assert "x.ids.npy is there already: it does not belong to the scores" in err


def test_runs_at_once(small):
    """Several runs that write the same files: whichever comes last, both files are its own."""
    _, _, folder = small
    args = [LIK, "score", folder / "q.npy", folder / "d.npy", "-j1", "-o", folder / "s.npy", "-k"]
    for _ in range(15):
        runs = [subprocess.Popen([*args, str(k)], env=environment()) for k in (1, 2, 3, 4)]
        assert [process.wait(timeout=60) for process in runs] == [0] * 4
        assert np.load(folder / "s.npy").shape == np.load(folder / "s.ids.npy").shape
    assert names(folder) == ["d.npy", "q.npy", "s.ids.npy", "s.npy"]


def test_several_outputs_or_none(small):
    """If one of the files cannot be put in place, the others stay as they were."""
    _, _, folder = small
    args = ("score", folder / "q.npy", folder / "d.npy", "-o", folder / "s.npy")
    (folder / "s.npy").write_text("old")
    (folder / "s.ids.npy").mkdir()
    err = fails(3, "s.ids.npy: cannot write: Is a directory", args=args)
    assert (folder / "s.npy").read_text() == "old" and len(names(folder)) == 4, err
    (folder / "map.svg").mkdir()
    (folder / "map.html").write_text("old")
    out, err = run("demo", "--data", DEMO, "-o", folder / "map", code=3)
    assert "map.svg: cannot write" in err and (folder / "map.html").read_text() == "old"
    assert len(names(folder)) == 6


@pytest.mark.parametrize("there", [True, False])
def test_two_outputs_in_one_file(small, there):
    """Two names that lead to one file would leave one of them with the other's contents."""
    _, _, folder = small
    args = ("score", folder / "q.npy", folder / "d.npy", "-o")
    (folder / "s.ids.npy").symlink_to("s.npy")
    (folder / "a.npy").symlink_to(folder / "b")
    (folder / "a.ids.npy").symlink_to("b")
    if there:
        (folder / "s.npy").write_text("old")
        (folder / "b").write_text("old")
    fails(2, "a.npy and", "a.ids.npy are one file", args=(*args, folder / "a.npy"))
    before = names(folder)
    fails(2, "s.npy and", "s.ids.npy are one file", args=(*args, folder / "s.npy"))
    assert names(folder) == before and (not there or (folder / "s.npy").read_text() == "old")


def test_closed_streams(small):
    """What is meant for a closed stream goes nowhere, not into a file that took its number."""
    _, _, folder = small
    args = f"'{LIK}' score '{folder}/q.npy' '{folder}/d.npy' -k 50 -v"
    expected = run("score", folder / "q.npy", folder / "d.npy", "-k", 50)[0]
    for streams in (">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"):
        command = f"{args} -o '{folder}/s.tsv' {streams}"
        assert subprocess.run(["bash", "-c", command], env=environment(), timeout=60).returncode == 0
        assert (folder / "s.tsv").read_text() == expected
    done = subprocess.run(
        ["bash", "-c", f"{args} >&-"], env=environment(), stderr=subprocess.PIPE, timeout=60
    )
    assert done.returncode == 3 and b"cannot write" in done.stderr


def test_what_cannot_be_written(small):
    """Exit codes of an output that fails, to standard output and to a file, of results and of
    --help.
    """
    _, _, folder = small
    args = ("score", folder / "q.npy", folder / "d.npy")
    for command in (args, ("score", "--help"), ("--version",), ("info", folder / "q.npy")):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [LIK, *map(str, command)], stdout=full, stderr=subprocess.PIPE, env=environment()
            )
        assert done.returncode == 5 and b"standard output: cannot write: No space left" in done.stderr, (
            command
        )
        with open(folder / "q.npy", "rb") as only_read:
            done = subprocess.run(
                [LIK, *map(str, command)], stdout=only_read, stderr=subprocess.PIPE, env=environment()
            )
        assert done.returncode == 3 and b"standard output: cannot write: Bad file" in done.stderr, command
    fails(5, "/dev/full", args=(*args, "-o", "/dev/full"))
    (folder / "big.npy").write_bytes(b"old")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
    done = subprocess.run(
        [LIK, *map(str, args), "-o", folder / "big.npy"],
        preexec_fn=limit,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert done.returncode == 5 and b"File too large" in done.stderr
    assert (folder / "big.npy").read_bytes() == b"old" and names(folder) == ["big.npy", "d.npy", "q.npy"]


def test_a_reader_that_has_gone(small):
    """The end of a pipe's reader is no failure, however the pipe is named."""
    _, _, folder = small
    command = f"'{LIK}' score '{folder}/q.npy' '{folder}/d.npy' --all"
    os.mkfifo(folder / "fifo")
    for form in (f"{command} | true", f"{command} -o /dev/stdout | true", f"{command} -o '{folder}/fifo'"):
        reader = (
            subprocess.Popen(["bash", "-c", f"exec 3<'{folder}/fifo'; exec 3<&-"]) if "fifo" in form else None
        )
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {form}"], capture_output=True, env=environment(), timeout=60
        )
        assert done.returncode == 0 and done.stderr == b"", (form, done)
        if reader:
            reader.wait(timeout=10)


@pytest.mark.parametrize("threads", [1, 4])
def test_interrupted_among_threads(long_run, small, threads):
    """A signal to the process goes to the thread that may hold it back, not to one of the
    pool's.
    """
    _, _, folder = small
    before = names(folder)
    args = [a for a in long_run if a != "-j1"]
    process, _ = start((*args, "-j", threads, "-o", folder / "s.npy"), folder)
    time.sleep(0.3)  # it holds signals back while it makes the file
    blocked = []
    for task in os.listdir(f"/proc/{process.pid}/task"):
        with open(f"/proc/{process.pid}/task/{task}/status") as status:
            mask = next(int(line.split()[1], 16) for line in status if line.startswith("SigBlk"))
        blocked.append(bool(mask >> (signal.SIGINT - 1) & 1))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 130 and names(folder) == before
    assert sorted(blocked) == [False] + [True] * (threads - 1)
