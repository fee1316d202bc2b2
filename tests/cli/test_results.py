"""What score, rerank and eval print and write."""

import json
import math
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import (
    DEMO,
    DEMO_FILES,
    LIK,
    TOLERANCE,
    check_ranking,
    fails,
    maxsim,
    parse_tsv,
    run,
    unit,
    write_jsonl,
)
from safetensors.numpy import save_file


def test_order_ties_and_threads(tmp_path, rng):
    q, d = unit(rng, 2, 3, 8), unit(rng, 6, 4, 8)
    d = np.concatenate([d, d, d])  # every score three times
    np.save(tmp_path / "q.npy", q)
    np.save(tmp_path / "d.npy", d)
    out, _ = run("score", tmp_path / "q.npy", tmp_path / "d.npy", "-k", 18)
    for hits in parse_tsv(out).values():
        for a, b in zip(hits, hits[1:]):
            assert a[1] > b[1] or (a[1] == b[1] and int(a[0]) < int(b[0]))
    for threads in (1, 2, 5):
        assert run("score", tmp_path / "q.npy", tmp_path / "d.npy", "-k", 18, "-j", threads)[0] == out
    assert run("score", tmp_path / "q.npy", tmp_path / "d.npy", "-k", 18, env={"LIK_THREADS": "3"})[0] == out


@pytest.mark.parametrize("device", ["cpu", "cpu:generic", "ref", "auto"])
def test_devices(small, device):
    q, d, folder = small
    for i, hits in parse_tsv(run("score", folder / "q.npy", folder / "d.npy", "--device", device)[0]).items():
        check_ranking(hits, maxsim(q, d)[int(i)], 10)


def test_all(small):
    q, d, folder = small
    expected = maxsim(q, d)
    for i, hits in parse_tsv(run("score", folder / "q.npy", folder / "d.npy", "--all")[0]).items():
        check_ranking(hits, expected[int(i)], 20)
    assert run("score", folder / "q.npy", folder / "d.npy", "--all", "-o", folder / "s.npy")[0] == ""
    scores = np.load(folder / "s.npy")
    assert scores.dtype == np.float32 and scores.shape == (3, 20)
    assert np.abs(scores - expected).max() < TOLERANCE * 5


def test_arrays_of_topk(small):
    q, d, folder = small
    run("score", folder / "q.npy", folder / "d.npy", "-k", 4, "-o", folder / "s.npy")
    scores, ids = np.load(folder / "s.npy"), np.load(folder / "s.ids.npy")
    assert scores.shape == ids.shape == (3, 4) and ids.dtype == np.int64
    for i in range(3):
        check_ranking(list(zip(ids[i], scores[i].astype(float))), maxsim(q, d)[i], 4)


def test_pairs(small):
    q, d, folder = small
    rng = np.random.default_rng(0)
    pairs = [(int(rng.integers(3)), int(rng.integers(20))) for _ in range(50)]
    (folder / "pairs").write_text("".join(f"{a}\t{b}\n" for a, b in pairs))
    out, _ = run("score", folder / "q.npy", folder / "d.npy", "--pairs", folder / "pairs")
    got = [(int(a), int(b), float(s)) for a, b, _, s in (line.split("\t") for line in out.splitlines())]
    assert [g[:2] for g in got] == pairs
    expected = maxsim(q, d)
    assert max(abs(s - expected[a, b]) for a, b, s in got) < TOLERANCE * 5
    run("score", folder / "q.npy", folder / "d.npy", "--pairs", folder / "pairs", "-o", folder / "p.npy")
    assert np.allclose(np.load(folder / "p.npy"), [g[2] for g in got], rtol=1e-7)


def test_json(small):
    q, d, folder = small
    out, _ = run("score", folder / "q.npy", folder / "d.npy", "--json", "-k", 3)
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["query"] for line in lines] == ["0", "1", "2"]
    for i, line in enumerate(lines):
        assert line["scored"] == 20 and line["took_ms"] >= 0 and line["stages"]["score_ms"] >= 0
        check_ranking([(h["id"], h["score"]) for h in line["hits"]], maxsim(q, d)[i], 3)
        for hit in line["hits"]:
            assert abs(hit["normalized"] - hit["score"] / 5) < 1e-6
            similarity = q[i].astype(np.float64) @ d[int(hit["id"])].astype(np.float64).T
            assert [m[0] for m in hit["matches"]] == list(range(5))
            assert [m[1] for m in hit["matches"]] == list(similarity.argmax(axis=1))
            assert np.abs(similarity.max(axis=1) - [m[2] for m in hit["matches"]]).max() < 1e-5
    # awkward names survive
    write_jsonl(
        folder / "odd.jsonl", [{"id": 'a "quoted" \\ name \u00e9 \U0001f600', "embedding": d[0].tolist()}]
    )
    (line,) = run("score", folder / "q.npy", folder / "odd.jsonl", "--json")[0].splitlines()[:1]
    assert json.loads(line)["hits"][0]["id"] == 'a "quoted" \\ name \u00e9 \U0001f600'


def test_trec_and_eval_round_trip(small):
    q, d, folder = small
    out, _ = run("score", folder / "q.npy", folder / "d.npy", "--trec=mine", "-k", 20)
    fields = [line.split(" ") for line in out.splitlines()]
    assert all(f[1] == "Q0" and f[5] == "mine" for f in fields)
    (folder / "run").write_text(out)
    expected = maxsim(q, d)
    qrels = [(i, j, int(1 + j % 2)) for i in range(3) for j in (3, 8, 11)]
    (folder / "qrels").write_text("".join(f"{i} 0 {j} {g}\n" for i, j, g in qrels))
    result = json.loads(
        run(
            "eval", folder / "run", folder / "qrels", "--json", "-m", "mrr,ndcg@5,recall@7,map", "--per-query"
        )[0]
    )
    for i in range(3):
        order = list(np.argsort(-expected[i], kind="stable"))
        grades = {j: g for a, j, g in qrels if a == i}
        ranks = sorted(order.index(j) + 1 for j in grades)
        got = result["per_query"][str(i)]
        assert got["mrr"] == pytest.approx(1 / ranks[0])
        assert got["recall@7"] == pytest.approx(sum(r <= 7 for r in ranks) / 3)
        assert got["map"] == pytest.approx(sum((n + 1) / r for n, r in enumerate(ranks)) / 3)
        dcg = sum(grades.get(j, 0) / math.log2(r + 2) for r, j in enumerate(order[:5]))
        ideal = sum(g / math.log2(r + 2) for r, g in enumerate(sorted(grades.values(), reverse=True)[:5]))
        assert got["ndcg@5"] == pytest.approx(dcg / ideal)
    assert run("eval", "-", folder / "qrels", stdin=out.encode())[0].count("\tall\t") == 4


def test_eval_as_trec_eval(tmp_path):
    """A case worked out by hand: ties go to the higher id, ranks are not believed, grades under
    1 do not count.
    """
    (tmp_path / "run").write_text(
        "a Q0 x 9 1.0 t\na Q0 y 1 1.0 t\na Q0 z 2 2.5 t\na Q0 w 3 -1 t\nc Q0 x 1 1 t\n"
    )
    (tmp_path / "qrels").write_text("a 0 x 1\na 0 w 2\na 0 z 0\na 0 v 1\na 0 u -1\nb 0 x 1\n")
    # order: z, y, x, w; relevant: x at 3, w at 4, v is missing
    out, err = run(
        "eval",
        tmp_path / "run",
        tmp_path / "qrels",
        "-m",
        "mrr,map,recall@3,recall,ndcg@10,mrr@2,ndcg",
        "--json",
    )
    m = {k: v["mean"] for k, v in json.loads(out)["measures"].items()}
    assert "1 judged queries are not in" in err
    assert m["mrr"] == pytest.approx(1 / 3) and m["mrr@2"] == 0
    assert m["map"] == pytest.approx((1 / 3 + 2 / 4) / 3)
    assert m["recall@3"] == pytest.approx(1 / 3) and m["recall"] == pytest.approx(2 / 3)
    ideal = 2 + 1 / math.log2(3) + 1 / 2
    assert m["ndcg@10"] == pytest.approx((1 / 2 + 2 / math.log2(5)) / ideal) == m["ndcg"]
    complete = json.loads(run("eval", tmp_path / "run", tmp_path / "qrels", "-c", "-m", "mrr", "--json")[0])
    assert complete["queries"] == 2 and complete["measures"]["mrr"]["mean"] == pytest.approx(1 / 6)
    table, _ = run("eval", tmp_path / "run", tmp_path / "qrels", "--table", "-m", "mrr", "--quiet")
    assert (
        table
        == "mrr          0.3333\n1 queries, 1 judged ones are not in the run, 1 of the run are not judged\n"
    )


def test_trec_ties_by_id(tmp_path, rng):
    d = np.repeat(unit(rng, 1, 2, 8), 12, axis=0)
    np.save(tmp_path / "d.npy", d)
    np.save(tmp_path / "q.npy", unit(rng, 1, 2, 8))
    out, _ = run("score", tmp_path / "q.npy", tmp_path / "d.npy", "--trec", "-k", 12)
    names = [line.split()[2] for line in out.splitlines()]
    assert names == sorted(names, reverse=True) and len(names) == 12


def test_rerank(small):
    q, d, folder = small
    expected = maxsim(q, d)
    lines = [f"{i} Q0 {j} {r + 1} {10 - r} bm25\n" for i in (2, 0) for r, j in enumerate((4, 17, 9, 0, 12))]
    (folder / "run").write_text("".join(lines))
    result = parse_tsv(run("rerank", folder / "q.npy", folder / "d.npy", folder / "run", "-k", 4)[0])
    assert set(result) == {"0", "2"}
    for i, hits in result.items():
        order = sorted((4, 17, 9, 0, 12), key=lambda j: -expected[int(i), j])[:4]
        assert [int(x) for x, _ in hits] == order
        assert max(abs(s - expected[int(i), int(x)]) for x, s in hits) < TOLERANCE * 5
    out, _ = run("rerank", folder / "q.npy", folder / "d.npy", folder / "run", "--all", "--trec")
    assert len(out.splitlines()) == 10
    run("rerank", folder / "q.npy", folder / "d.npy", folder / "run", "-k", 5, "-o", folder / "r.npy")
    assert np.array_equal(np.load(folder / "r.ids.npy")[1], [-1] * 5)  # query 1 has no candidates
    (folder / "odd").write_text("".join(lines) + "0 Q0 nobody 9 1 t\n7 Q0 1 1 1 t\n")
    fails(
        4,
        "odd, line 11: document 'nobody' is not in",
        "2 of 12 lines",
        "--skip-missing",
        args=("rerank", folder / "q.npy", folder / "d.npy", folder / "odd"),
    )
    _, err = run("rerank", folder / "q.npy", folder / "d.npy", folder / "odd", "--skip-missing")
    assert "2 of 12 lines" in err


def test_rerank_takes_the_order_that_fits_more_numbers(small):
    """Both orders name something: the files' sequences are numbered."""
    q, d, folder = small
    assert len(q) < len(d)
    (folder / "run").write_text("".join(f"0 Q0 {j} {j} 1 t\n" for j in range(len(d))))
    right = run("rerank", folder / "q.npy", folder / "d.npy", folder / "run")
    turned = run("rerank", folder / "d.npy", folder / "q.npy", folder / "run")
    assert turned[0] == right[0] and "the order is" in turned[1] and "the order is" not in right[1]


def test_rerank_takes_the_earlier_order(small):
    """DOCUMENTS QUERIES RUN, where the names tell the files apart; else it is the new order."""
    _, _, folder = small
    (folder / "run").write_text("q2 Q0 d4 1 3 t\nq0 Q0 d17 1 2 t\n")
    (folder / "qids").write_text("".join(f"q{i}\n" for i in range(len(np.load(folder / "q.npy")))))
    (folder / "dids").write_text("".join(f"d{i}\n" for i in range(len(np.load(folder / "d.npy")))))
    names = ("--ids", folder / "dids", "--query-ids", folder / "qids")
    new, err = run("rerank", folder / "q.npy", folder / "d.npy", folder / "run", *names)
    assert "order" not in err
    old, err = run("rerank", folder / "d.npy", folder / "q.npy", folder / "run", *names)
    assert old == new and "the order is QUERIES DOCUMENTS RUN" in err
    (folder / "odd").write_text("nobody Q0 d4 1 3 t\n")
    fails(
        4,
        "query 'nobody' is not in",
        args=("rerank", folder / "q.npy", folder / "d.npy", folder / "odd", *names),
    )
    assert "qids has 3 ids" in fails(
        4, "ids", args=("rerank", folder / "d.npy", folder / "q.npy", folder / "odd", *names)
    )


def test_weights_are_told():
    """Wherever weights of the queries' file are in the scores, a note says so."""
    args = (DEMO / "queries.safetensors", DEMO / "documents.safetensors")
    assert "weights of query tokens, which are applied" in run("score", *args, "-k", 1)[1]
    assert "weights" not in run("score", *args, "-k", 1, "--no-weights")[1]
    assert "weights" not in run("score", *args, "-k", 1, "--quiet")[1]


def test_what_a_run_may_hold(small, tmp_path):
    """A tag is one word; a NaN has no place; what cannot be written is said before anything is
    scored.
    """
    q, d, folder = small
    for tag in ("a b", "", "a\tb"):
        fails(2, "a tag is one word", args=("score", folder / "q.npy", folder / "d.npy", f"--trec={tag}"))
    fails(2, "-o needs a file name", args=("score", folder / "q.npy", folder / "d.npy", "-o", ""))
    infinite = d.copy()
    infinite[1, 0, 0] = np.inf
    np.save(tmp_path / "inf.npy", infinite)
    args = ("score", folder / "q.npy", tmp_path / "inf.npy", "--normalize", "-k", len(d))
    out, err = run(*args, "--trec")
    assert len(out.splitlines()) == len(q) * (len(d) - 1) and "nan" not in out and "not finite" in err
    tsv = run(*args)[0]
    assert tsv.count("\tnan\n") == len(q) and "-nan" not in tsv
    hits = json.loads(run(*args, "--json")[0].splitlines()[0])["hits"]
    assert hits[-1]["score"] is None and hits[-1]["matches"][0][1:] == [0, None]


def test_no_escapes_reach_the_terminal(tmp_path, rng):
    """Names and texts from files are shown without what steers a terminal."""
    save_file(
        {"embeddings": unit(rng, 2, 3, 4), "x\x1b[31mred\x07": np.zeros(3, np.float32)},
        tmp_path / "n.safetensors",
    )
    out, _ = run("info", tmp_path / "n.safetensors")
    assert "\x1b" not in out and "\x07" not in out and "[31mred" in out
    (tmp_path / "run").write_text("0 Q0 1 1 \x1b[31mX\x9b t\n")
    fails(3, "'\\u001b[31mX\\u009b' is not a number", args=("eval", tmp_path / "run", tmp_path / "run"))


def test_slices_do_not_show(tmp_path, rng):
    """Enough work for several slices and merges; the result is that of one pass."""
    q, d = unit(rng, 6, 32, 64), unit(rng, 6000, 40, 64).astype(np.float16)
    np.save(tmp_path / "q.npy", q)
    np.save(tmp_path / "d.npy", d)
    run("score", tmp_path / "q.npy", tmp_path / "d.npy", "-k", 37, "-o", tmp_path / "k.npy")
    run("score", tmp_path / "q.npy", tmp_path / "d.npy", "--all", "-o", tmp_path / "a.npy")
    everything, scores, ids = (np.load(tmp_path / n) for n in ("a.npy", "k.npy", "k.ids.npy"))
    for row, s, i in zip(everything, scores, ids):
        order = np.lexsort((np.arange(len(row)), -row))[:37]
        assert np.array_equal(i, order) and np.array_equal(s, row[order])
    expected = maxsim(q[:1], d[:200])
    assert np.abs(everything[0, :200] - expected[0]).max() < 1e-4


# Bits an element: bytes a token, and what of nDCG@10 the packaged collection may lose at most.
COMPRESSED = {4: (66, 0.01), 2: (34, 0.02), 1: (18, 0.03)}


def check_measures(out):
    """As demo/README.md has them."""
    assert "MaxSim                 0.725" in out and "MaxSim, idf weights    0.728" in out
    assert "0.687 (0.027)    0.643" in out and "0.720 (0.026)    0.670" in out
    lines = {line.split("  ")[0]: line.split() for line in out.splitlines()}
    for bits, (bytes_a_token, most) in COMPRESSED.items():
        fields = lines[f"MaxSim, {bits}-bit tokens"]
        assert abs(float(fields[7])) < most and fields[9] == str(bytes_a_token)


def test_demo(tmp_path):
    """The second time by the way that operands take to a GPU."""
    out, err = run("demo", "--data", DEMO, "-o", tmp_path / "map", "-k", 2)
    assert err == ""
    check_measures(out)
    assert f"{tmp_path}/map.html and {tmp_path}/map.svg" in out
    assert (tmp_path / "map.html").read_text().startswith("<!doctype html>")
    staged = {"LIK_DEMO_DATA": str(DEMO), "LIK_STAGED": "100000"}
    everything, _ = run("demo", "--all", "-o", tmp_path / "map", env=staged)
    check_measures(everything)
    assert everything.count("\n  relevant: ") == 200
    fails(3, "holds no documents.safetensors", args=("demo", "--data", tmp_path))


def test_demo_where_the_data_are(tmp_path):
    """A command without the collection beside it, in its folder and in the one above."""
    alone = tmp_path / "bin" / "lik"
    alone.parent.mkdir()
    shutil.copy2(LIK, alone)
    paths = {"LD_LIBRARY_PATH": str(Path(LIK).resolve().parent)}
    for folder in (DEMO, DEMO.parent, tmp_path):
        done = subprocess.run(
            [alone, "demo", "--quiet", "-o", tmp_path / "map"],
            cwd=folder,
            env={**os.environ, **paths},
            capture_output=True,
            text=True,
        )
        assert (done.returncode == 3) is (folder == tmp_path), done.stderr
    assert "beside the program, in ./demo or here" in done.stderr and "--data DIR" in done.stderr
    (tmp_path / "documents.safetensors").touch()  # anybody's
    assert subprocess.run([alone, "demo"], cwd=tmp_path, env={**os.environ, **paths}).returncode == 3


def test_demo_data_through_score_and_eval():
    args = (*DEMO_FILES, "--trec")
    run_text, _ = run("score", *args)
    plain, _ = run("score", *args, "--no-weights")
    weighted = json.loads(
        run("eval", "-", DEMO / "qrels.txt", "-m", "ndcg@10,mrr@10", "--json", stdin=run_text.encode())[0]
    )
    unweighted = json.loads(
        run("eval", "-", DEMO / "qrels.txt", "-m", "ndcg@10,mrr@10", "--json", stdin=plain.encode())[0]
    )
    assert weighted["measures"]["ndcg@10"]["mean"] == pytest.approx(0.728, abs=0.001)
    assert unweighted["measures"]["ndcg@10"]["mean"] == pytest.approx(0.725, abs=0.001)
