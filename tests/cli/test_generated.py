"""The manual page and the completions that the build makes of the table of options."""

import os
import pty
import re
import select
import shutil
import subprocess
import time

import pytest
from conftest import fails, run
from test_process import COMMANDS


def options_of(command):
    """--name of each option in `lik COMMAND --help`."""
    text = run(command, "--help")[0].split("\noptions:\n")[1]
    found = re.findall(r"^  (?:-\w, |    )--([a-z-]+)", text, re.M)
    described = re.findall(r"^  (?:-\w, |    )--[a-z-]+\S* *(?:\S+ )? *\S", text, re.M)
    assert found and len(described) == len(found), "an option without its meaning"
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained_once_for_its_command(command):
    found = options_of(command)
    assert len(set(found)) == len(found)
    text = run(command, "--help")[0]
    assert not any(f"{other}:" in text.split("\noptions:\n")[1] for other in ("demo", "explain", "score"))
    assert "generate" not in text


@pytest.mark.parametrize("kind", ["man", "bash", "zsh", "fish"])
def test_all_commands_and_options_are_there(kind):
    text = run("--generate", kind)[0].replace("\\-", "-")
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", text)
        for option in options_of(command):
            wanted = {"fish": rf"from {command}' -l {option}\b", "man": rf"--{option}\b"}
            assert re.search(wanted.get(kind, rf"--{option}\b"), text), (command, option)
    fails(2, "man, bash, zsh or fish, not 'csh'", args=["--generate", "csh"])


def complete(tmp_path, *words):
    (tmp_path / "lik").write_text(run("--generate", "bash")[0])
    script = """source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _lik
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    command = ["bash", "-c", script, "bash", str(tmp_path / "lik"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.split(
        "\n"
    )[:-1]


def test_bash_completes(tmp_path):
    assert complete(tmp_path, "lik", "re") == ["rerank"]
    assert complete(tmp_path, "lik", "explain", "--gr") == ["--grid"]
    assert complete(tmp_path, "lik", "score", "--gr") == [""]
    assert complete(tmp_path, "lik", "score", "--color", "a") == ["auto", "always"]
    assert complete(tmp_path, "lik", "score", "--color", "=", "al") == ["always"]
    assert complete(tmp_path, "lik", "score", "--color", "=") == ["auto", "always", "never"]
    (tmp_path / "queries.npy").touch()
    (tmp_path / "two words").touch()
    # what bash takes for several words; the last one is completed
    assert complete(tmp_path, "lik", "score", "--device", "cpu", ":", "gen") == ["generic"]
    assert complete(tmp_path, "lik", "score", "--device", "=", "cpu", ":", "gen") == ["generic"]
    assert "generic" in complete(tmp_path, "lik", "score", "--device", "cpu", ":")
    assert complete(tmp_path, "lik", "score", "--device", "cu") == ["cuda:0"]
    assert complete(tmp_path, "lik", "score", "--device", "cpu:gen") == [
        "cpu:generic"
    ]  # where : parts nothing
    assert complete(tmp_path, "lik", "demo", "quer") == [""]  # takes no files
    assert complete(tmp_path, "lik", "score", "two") == ["two words"]
    assert complete(tmp_path, "lik", "score", "quer") == ["queries.npy"]


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source ./lik; bind 'set bell-style none'; PS1='$ '\n"),
    "zsh": (
        ["zsh", "-f", "-i"],
        "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -d ./dump; PS1='$ '\n",
    ),
}


def typed(shell, folder, text):
    """The words that a shell at a terminal takes `text` for, once the tabs in it have been
    completed."""
    (folder / {"bash": "lik", "zsh": "_lik"}[shell]).write_text(run("--generate", shell)[0])
    command, setup = SHELLS[shell]
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "dumb", "HISTFILE": "/dev/null"}
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )
    os.close(theirs)
    said = ""

    def wait_for(sign):
        nonlocal said
        until = time.monotonic() + 90
        while not re.search(sign, said) and time.monotonic() < until:
            if select.select([ours], [], [], 0.2)[0]:
                said += os.read(ours, 4096).decode(errors="replace")
        assert re.search(sign, said), said

    try:
        os.write(ours, (setup + "echo rea''dy\n").encode())
        wait_for("ready")
        said = ""
        # the tab's work is done when the line runs: keys are read one after another
        os.write(ours, text.encode())
        wait_for(re.escape(text.split("\t")[0][-3:]))
        time.sleep(0.5)
        os.write(ours, b"\x01printf '<%s>' \x05; echo en''d\n")
        wait_for(r">end\b")
        return re.findall(r"<([^<>]*)>", re.search(r"((?:<[^<>]*>)+)end", said)[1])
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize("shell", SHELLS)
def test_at_a_terminal(tmp_path, shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "two words").touch()
    lines = {
        "lik expl\t": ["lik", "explain"],
        "lik score --device cpu:gen\t": ["lik", "score", "--device", "cpu:generic"],
        "lik score --device=cpu:gen\t": ["lik", "score", "--device=cpu:generic"],
        "lik score --device cud\t": ["lik", "score", "--device", "cuda:0"],
        "lik score --color ne\t": ["lik", "score", "--color", "never"],
        "lik info two\t": ["lik", "info", "two words"],
    }
    for text, words in lines.items():
        assert typed(shell, tmp_path, text) == words, text


def test_fish_completes(tmp_path):
    if not shutil.which("fish"):
        pytest.skip("fish is not installed")
    (tmp_path / "lik.fish").write_text(run("--generate", "fish")[0])
    (tmp_path / "queries.npy").touch()

    def found(line):
        command = ["fish", "--no-config", "-c", f"source lik.fish; complete -C '{line}'"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        return [x.split("\t")[0] for x in done.stdout.splitlines()]

    assert {*COMMANDS} <= {*found("lik ")} and "queries.npy" not in found("lik ")  # -f: no files
    assert found("lik expl") == ["explain"] and found("lik score quer") == ["queries.npy"]
    assert found("lik demo quer") == []
    assert found("lik score --device cpu:gen") == ["cpu:generic"]
    assert found("lik score --device=cpu:gen") == ["--device=cpu:generic"]


def test_descriptions_keep_their_apostrophes():
    assert r"the page\'s picture" in run("--generate", "fish")[0]
    assert (
        "cpu, cpu:LEVEL"
        in run("--generate", "fish")[0].split(" -l device ")[1].split(" -d ")[1].split("\n")[0]
    )
    assert r"the page'\''s picture" in run("--generate", "zsh")[0]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_them(tmp_path, shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "x").write_text(run("--generate", shell)[0])
    done = subprocess.run([shell, "-n", tmp_path / "x"], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_the_manual_page_is_sound(tmp_path):
    if not shutil.which("mandoc"):
        pytest.skip("mandoc is not installed")
    (tmp_path / "lik.1").write_text(run("--generate", "man")[0])
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "error", tmp_path / "lik.1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
