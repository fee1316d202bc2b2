"""Every command of lik with every allocation, thread and system call failing in turn, and
killed before and after each.

What must hold: exit 0 only with the bytes of an undisturbed run; else the exit code of
docs/cli.md, the output files as they were and nothing beside them. After a kill each output is
the old or the new one, those that belong together too, unless the first of them is not there;
and the next run is right and leaves no trace of the dead one.
"""

import errno
import json
import os
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import BUILD, DEMO, FAULTS, totals

LIK = BUILD / "lik"
OLD = b"what was there before\n"
# Each kind of call with the ways in which it fails. EINTR and short transfers must not be
# noticed.
WAYS = {
    "memory": [errno.ENOMEM],
    "thread": [errno.EAGAIN],
    "open": [errno.EIO, errno.ENOMEM, errno.EINTR],
    "read": [errno.EIO, errno.ENOMEM, errno.EINTR, "short"],
    "write": [errno.EIO, errno.ENOSPC, errno.EPIPE, errno.EINTR, "short"],
    "fsync": [errno.EIO, errno.ENOSPC, errno.EINTR],
    "rename": [errno.EIO, errno.ENOSPC],
    "mmap": [errno.ENOMEM, errno.EIO],
    "ftruncate": [errno.EIO],
    "stat": [errno.EIO, errno.ENOMEM],
    "close": [errno.EIO, errno.EINTR],
    "unlink": [errno.EIO],
    "lock": [errno.ENOLCK, errno.EINTR],
    "chmod": [errno.EIO, errno.EPERM],
    "link": [errno.EIO, errno.ENOMEM],
}
EXHAUSTED = (errno.ENOMEM, errno.EAGAIN, errno.ENOSPC)

# name: arguments; files it writes, the one that the others are named after first; what is its
# standard input.
CASES = {
    "score": ("score {q.npy} {d.npy} -k 3 -j 3", (), None),
    "score-stdin": ("score - {d.npy} -k 3", (), "q.npy"),
    "score-stdin-jsonl": ("score {q.npy} - -k 3", (), "d.jsonl"),
    "score-json": ("score {q.jsonl} {d.jsonl} --json -k 2", (), None),
    "score-table": ("score {q.jsonl} {d.jsonl} --table -k 2", (), None),
    "score-text": ("score {q.npy} {d.npy} --table -k 2 --ids {ids.txt} --text {text.jsonl}", (), None),
    "score-trec": (
        "score {q.npy} {d.safetensors} --trec -k 3 --ids {ids.npy} --query-ids {qids.txt}",
        (),
        None,
    ),
    "score-each": ("score {q.npy} {each.safetensors} -k 3", (), None),
    "score-packed": ("score {q.safetensors} {packed.npy} --all -j 2", (), None),
    "score-lens": ("score {q.npy} {flat.npy} --lens {lens.json} -k 2", (), None),
    "score-f64": ("score {q.npy} {f64.npy} -k 2 --normalize", (), None),
    "score-skip": ("score {q.npy} {nan.npy} -k 2 --skip-bad", (), None),
    "score-staged": ("score {q.npy} {packed.npy} -k 3", (), None),
    "score-o-text": ("score {q.npy} {d.npy} -k 3 -o out.tsv", ("out.tsv",), None),
    "score-o-npy": ("score {q.npy} {d.npy} -k 3 -o out.npy", ("out.npy", "out.ids.npy"), None),
    "score-o-all": ("score {q.npy} {d.npy} --all -o out.npy", ("out.npy",), None),
    "score-o-link": ("score {q.npy} {d.npy} -k 3 -o link", ("deep/out.tsv",), None),
    "score-cores": ("score {q.npy} {d.npy} -k 3", (), None),
    "score-pairs": ("score {q.npy} {d.npy} --pairs {pairs}", (), None),
    "score-o-pairs": ("score {q.npy} {d.npy} --pairs {pairs} -o out.npy", ("out.npy",), None),
    "rerank": ("rerank {q.npy} {d.npy} {run} --ids {ids.jsonl} --query-ids {qids.txt} -k 3", (), None),
    "rerank-stdin": ("rerank {q.npy} {d.npy} - --ids {ids.txt} --query-ids {qids.txt} --trec", (), "run"),
    "rerank-o-npy": (
        "rerank {q.npy} {d.npy} {run} --ids {ids.txt} --query-ids {qids.txt} -o out.npy",
        ("out.npy", "out.ids.npy"),
        None,
    ),
    "rerank-staged": ("rerank {q.npy} {d.npy} {run} --ids {ids.txt} --query-ids {qids.txt} --json", (), None),
    "compress": ("compress {d.jsonl} -o out --centroids 8 --nbits 2 -j 2", ("out",), None),
    "compress-norms": (
        "compress {nan.npy} -o out --skip-bad --inv-norms --ids {ids.txt} --text {text.jsonl}",
        ("out",),
        None,
    ),
    "compress-staged": ("compress {d.npy} -o link --centroids 8", ("deep/out.tsv",), None),
    "score-compressed": ("score {q.npy} {d.lik} --table -k 2", (), None),
    "rerank-compressed-staged": ("rerank {q.npy} {d.lik} {run} --query-ids {qids.txt} -k 3", (), None),
    "explain-compressed": ("explain {q.npy} {d.lik} --compare d5", (), None),
    "info-compressed": ("info {d.lik} --json --check", (), None),
    "eval": ("eval {run} {qrels}", (), None),
    "eval-stdin": ("eval - {qrels} --json --per-query", (), "run"),
    "explain": ("explain {q.jsonl} {d.jsonl} --compare d5", (), None),
    "explain-json": ("explain {q.npy} {d.npy} --json", (), None),
    "explain-html": ("explain {q.jsonl} {d.jsonl} -d d3 -o out.html", ("out.html",), None),
    "explain-svg": ("explain {q.jsonl} {d.jsonl} --compare d5 -o out.svg", ("out.svg",), None),
    "explain-ties": ("explain {same.npy} {d.npy} -d 1 --compare 2", (), None),
    "info": ("info {d.npy} --check", (), None),
    "info-safetensors": ("info {d.safetensors} --json --check", (), None),
    "info-jsonl": ("info {d.jsonl} --json", (), None),
    "info-stdin": ("info -", (), "d.safetensors"),
    "info-other": ("info {other.safetensors} --json", (), None),
    "bench": ("bench {q.npy} {d.npy} --rounds 1 --json", (), None),
    "bench-quick": ("bench --quick --rounds 1 --json", (), None),
    "demo": ("demo --data {demo} -o out -k 2", ("out.html", "out.svg"), None),
}
ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
    "COLUMNS": "100",
    "LIK_THREADS": "1",
    "PATH": os.environ["PATH"],
}
STAGED = {"LIK_STAGED": "500"}
# Times, and the padding in front of them.
VOLATILE = (
    (rb'("(?:took|open|score|median|best)_ms"|"gflops"|"gb_per_s"): [-+.e\d]+', rb"\1: 0"),
    (rb"[.\d]+ ms \xc2\xb7", b"0 ms"),
    (rb"(?m)^(MaxSim.*) [.\d]+$", rb"\1 0"),
    (rb"in \d+ ms\.", b"in 0 ms."),
    (rb" +", b" "),
)


def store(path, arrays):
    """A .safetensors file of {name: (type, array)}."""
    header, at = {}, 0
    for name, (kind, array) in arrays.items():
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(
        len(text).to_bytes(8, "little") + text + b"".join(a.tobytes() for _, a in arrays.values())
    )


def make_demo(folder):
    """A few documents and queries of the packaged collection."""
    folder.mkdir()
    for name, count in (("documents", 12), ("queries", 8)):
        data = (DEMO / f"{name}.safetensors").read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        header.pop("__metadata__", None)
        kinds = {"I8": np.int8, "F32": np.float32, "I32": np.int32, "I64": np.int64, "F16": np.float16}
        all_arrays = {}
        for key, x in header.items():
            begin, end = (8 + size + at for at in x["data_offsets"])
            all_arrays[key] = np.frombuffer(data[begin:end], kinds[x["dtype"]]).reshape(x["shape"])
        lengths = next(a for key, a in all_arrays.items() if key in ("lengths", "doclens"))
        rows = int(lengths[:count].sum())
        cut = {
            key: (header[key]["dtype"], a[: count if a.shape[0] == len(lengths) else rows])
            for key, a in all_arrays.items()
        }
        store(folder / f"{name}.safetensors", cut)
        lines = (DEMO / f"{name}.jsonl").read_text().splitlines()[:count]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    queries = [json.loads(line)["id"] for line in (folder / "queries.jsonl").read_text().splitlines()]
    for name in ("qrels.txt", "bm25.run", "meanpool.run"):
        kept = [line for line in (DEMO / name).read_text().splitlines() if line.split()[0] in queries]
        (folder / name).write_text("\n".join(kept) + "\n")


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Small inputs of every kind."""
    folder, rng = tmp_path_factory.mktemp("inputs"), np.random.default_rng(3)

    def unit(*shape):
        x = rng.standard_normal(shape)
        return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)

    q, d = unit(3, 4, 8), unit(9, 5, 8)
    np.save(folder / "q.npy", q)
    np.save(folder / "d.npy", d)
    np.save(folder / "same.npy", np.repeat(unit(1, 1, 8), 60, axis=1))  # qsort sorts otherwise without memory
    np.save(folder / "f64.npy", d.astype(np.float64))
    nan = d.copy()
    nan[2, 1, 3] = np.nan
    np.save(folder / "nan.npy", nan)
    lengths = np.array([5, 1, 7, 4, 2, 6, 3, 8, 9])
    np.save(folder / "packed.npy", unit(45, 8))
    np.save(folder / "packed.doclens.npy", lengths)
    np.save(folder / "flat.npy", unit(45, 8))
    (folder / "lens.json").write_text(json.dumps(lengths.tolist()))
    store(
        folder / "d.safetensors",
        {
            "embeddings": ("I8", np.rint(d.reshape(45, 8) * 127).astype(np.int8)),
            "lengths": ("I64", lengths),
            "scales": ("F32", np.full(45, 1 / 127, np.float32)),
            "mask": ("BOOL", rng.random(45) > 0.1),
        },
    )
    store(
        folder / "q.safetensors",
        {"vectors": ("F32", q.reshape(12, 8)), "offsets": ("I64", np.array([0, 4, 8, 12])),
         "weights": ("F32", rng.random(12).astype(np.float32))},
    )  # fmt: skip
    store(folder / "each.safetensors", {f"doc{i}": ("F32", x) for i, x in enumerate(d)})
    store(folder / "other.safetensors", {"a": ("F32", q), "b": ("I32", np.arange(5, dtype=np.int32))})
    words = ["some", "words", "##of", "1", "x"]
    for name, x in (("q", q), ("d", d)):
        lines = []
        for i, row in enumerate(x):
            vectors = [[round(float(v), 4) for v in token] for token in row]
            line = {"id": f"{name}{i}", "text": "some words of 1 and more", "tokens": words[: len(row)]}
            lines.append(json.dumps(line | {"embedding": vectors}) + "\n")
        (folder / f"{name}.jsonl").write_text("".join(lines))
    (folder / "ids.txt").write_text("".join(f"d{i}\n" for i in range(9)))
    (folder / "qids.txt").write_text("".join(f"q{i}\n" for i in range(3)))
    (folder / "ids.jsonl").write_text("".join(json.dumps({"id": f"d{i}"}) + "\n" for i in range(9)))
    np.save(folder / "ids.npy", np.arange(9) + 100)
    (folder / "text.jsonl").write_text(
        "".join(
            json.dumps({"id": f"d{i}", "text": f"t\u00e9xt {i}", "tokens": list("abcde")}) + "\n"
            for i in range(9)
        )
    )
    (folder / "pairs").write_text("".join(f"{i % 3} {i % 9}\n" for i in range(14)))
    (folder / "run").write_text("".join(f"q{i % 3} Q0 d{i} {i} {9 - i} t\n" for i in range(9)))
    (folder / "qrels").write_text("".join(f"q{i % 3} 0 d{i} {i % 2}\n" for i in range(9)))
    make_demo(folder / "demo")
    subprocess.run(
        [LIK, "compress", folder / "d.jsonl", "-o", folder / "d.lik", "--inv-norms", "--quiet"], check=True
    )
    return folder


class Case:
    """A command, the bytes it gives undisturbed, and how many calls of each kind it makes."""

    def __init__(self, name, world, folder, old):
        text, self.outputs, stdin = CASES[name]
        self.name, self.folder, self.old = name, folder, old
        self.args = [re.sub(r"\{(.*)\}", lambda m: str(world / m[1]), word) for word in text.split()]
        self.stdin = world / stdin if stdin else None
        self.environment = ENVIRONMENT | (STAGED if name.endswith("staged") else {})
        if name == "score-cores":  # the command counts them
            self.environment = {k: v for k, v in self.environment.items() if k != "LIK_THREADS"}
        self.made = 0
        work = self.fresh()
        log = folder / "calls"
        done = self.run(work, LIK_INJECT="count", LIK_INJECT_LOG=str(log), LD_PRELOAD=str(FAULTS))
        self.code, self.out = done.returncode, normal(done.stdout)
        assert self.code in (0, 4) and (self.code == 4) == (name == "info-other"), done
        self.new = {n: (work / n).read_bytes() for n in self.outputs}
        self.counts = {k: int(n) for k, n in (line.split() for line in log.read_text().splitlines())}

    def fresh(self):
        """A folder as the command finds it."""
        self.made += 1
        work = self.folder / str(self.made)
        (work / "deep").mkdir(parents=True)
        (work / "link").symlink_to("deep/out.tsv")
        for name in self.outputs if self.old else ():
            (work / name).write_bytes(OLD)
            (work / name).chmod(0o640)
        return work

    def run(self, work, **environment):
        for wait in (0.1, 0.5, 2, 5, 0):
            try:
                with open(self.stdin or "/dev/null", "rb") as stdin:
                    return subprocess.run(
                        [LIK, *self.args], cwd=work, stdin=stdin, capture_output=True, timeout=60,
                        env=self.environment | environment,
                    )  # fmt: skip
            except BlockingIOError:  # the machine has no process left; that is another test's fault
                if not wait:
                    raise
                time.sleep(wait)

    def state(self, work):
        """Each output: "old", "new", or what else is there; and names that do not belong
        there.
        """
        found, strange = [], []
        for name in self.outputs:
            path = work / name
            text = path.read_bytes() if path.exists() else None
            what = (
                "new" if text == self.new[name] else "old" if text == (OLD if self.old else None) else "other"
            )
            if self.old and what != "other" and path.stat().st_mode & 0o777 != 0o640:
                what += ", with another mode"
            found.append("absent" if text is None and what == "other" else what)
        for path in work.rglob("*"):
            if str(path.relative_to(work)) not in (*self.outputs, "deep", "link"):
                strange.append(path.name)
        return found, strange

    def fault(self, kind, n, how, way):
        """One run with a fault; returns what is wrong, or None."""
        work = self.fresh()
        log = self.folder / f"{work.name}.log"
        try:
            done = self.run(
                work, LIK_INJECT=f"{kind} {n} {how} {way}", LIK_INJECT_LOG=str(log), LD_PRELOAD=str(FAULTS)
            )
        except subprocess.TimeoutExpired:
            return f"{self.name}: {kind} {n} {how} {way}: it hangs"
        if not log.exists():
            return None  # fewer calls than in the undisturbed run
        totals["runs"] += 1
        wrong = self.judge_end(work, done, way) if kind == "system" else self.judge(work, done, kind, way)
        subprocess.run(["rm", "-rf", work, log], check=True)
        return wrong and f"{self.name}: {kind} {n} {how} {way}: {wrong}; {done.returncode}, {done.stderr!r}"

    def judge(self, work, done, kind, way):
        found, strange = self.state(work)
        if kind == "unlink":  # what cannot be removed stays
            strange = [name for name in strange if not name.startswith(".lik-")]
        if strange:
            return f"leaves {strange}"
        if (kind, way) == ("chmod", errno.EPERM):  # a file system without modes
            found = [name.removesuffix(", with another mode") for name in found]
        if done.returncode == self.code and normal(done.stdout) == self.out and set(found) <= {"new"}:
            return None
        if way in (errno.EINTR, "short"):
            return f"is noticed: {found}, {done.stdout[:200]!r}"
        if set(found) - {"old"}:
            return f"outputs are {found}"
        if way == errno.EPIPE:
            return None if done.returncode == 0 and b"error" not in done.stderr else "is no end of a pipe"
        if done.returncode != (5 if way in EXHAUSTED else 3):
            return f"has the wrong exit code or output: {done.stdout[:300]!r}"
        _, _, said = done.stderr.rpartition(b"lik: error: ")
        if not said or (kind == "memory" and b"memory" not in said):
            return "has the wrong message"
        return None

    def judge_end(self, work, done, way):
        """After a kill, or when from some call on nothing worked any more."""
        totals["kills"] += way in ("before", "after")
        found, _ = self.state(work)
        if done.returncode not in ((-signal.SIGKILL,) if way in ("before", "after") else (0, 3)):
            return "has the wrong exit code"
        # Old, new, or without the first of them, which cannot be read without noticing.
        together = found in (["old"] * len(found), ["new"] * len(found))
        if not together and (len(found) < 2 or (work / self.outputs[0]).exists()):
            return f"outputs are {found}"
        if done.returncode == 0 and (set(found) - {"new"} or normal(done.stdout) != self.out):
            return f"has the wrong output: {found}, {done.stdout[:200]!r}"
        again = self.run(work)
        found, strange = self.state(work)
        if again.returncode != self.code or set(found) - {"new"} or strange:
            return f"the next run ends with {again.returncode}, {found}, {strange}"
        return None


def normal(text):
    for pattern, instead in VOLATILE:
        text = re.sub(pattern, instead, text)
    return text


@pytest.fixture(scope="session")
def case(world, tmp_path_factory):
    """case(name, old): the command, its outputs being there before or not."""
    made = {}

    def get(name, old):
        if (name, old) not in made:
            made[name, old] = Case(name, world, tmp_path_factory.mktemp(name), old)
        return made[name, old]

    return get


def check_all(one, plans):
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wrong = [w for w in pool.map(lambda plan: one.fault(*plan), plans) if w]
    assert not wrong, f"{len(wrong)} of {len(plans)} runs are wrong:\n" + "\n".join(wrong[:20])


def plans_of(one, kinds, turns):
    for kind in kinds:
        for way in WAYS[kind]:
            for how in ("once",) if way == errno.EINTR else ("once", "ever"):
                for n in turns(one.counts[kind], len(one.name) + len(how)):
                    yield kind, n, how, way


@pytest.mark.parametrize("name", CASES)
def test_without_memory(case, turns, name):
    """Allocations and threads."""
    one = case(name, True)
    check_all(one, list(plans_of(one, ("memory", "thread"), turns)))


@pytest.mark.parametrize("name", CASES)
def test_without_disk(case, turns, name):
    """Every system call that concerns files; outputs being there before, and not."""
    for old in (True, False) if CASES[name][1] else (True,):
        one = case(name, old)
        check_all(one, list(plans_of(one, [k for k in WAYS if k not in ("memory", "thread")], turns)))


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][1]])
def test_killed(case, turns, name):
    """kill -9 between any two system calls; and a disk that dies at one of them."""
    for old in (True, False):
        one = case(name, old)
        numbers = range(1, one.counts["system"] + 1)
        ways = (("once", "before"), ("once", "after"), ("ever", errno.EIO))
        check_all(one, [("system", n, how, way) for how, way in ways for n in numbers])
