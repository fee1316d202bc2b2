"""Reranks what BM25 found, and says what it gained: python examples/rerank_bm25.py

The demo's collection: int8 tokens with scales, a TREC run and judgments. The same by the
command: lik rerank, lik eval.
"""

import json
from collections import defaultdict
from pathlib import Path

import late_interaction_kernels as lik
import numpy as np
from late_interaction_kernels.int8 import dequantize_int8_per_token
from late_interaction_kernels.score_pairs import score_pairs_packed

DEMO = Path(__file__).resolve().parent.parent / "demo"


def lines(name):
    return (DEMO / name).read_text(encoding="utf-8").splitlines()


queries, documents = (lik.load(DEMO / f"{name}.safetensors") for name in ("queries", "documents"))
number = {
    name: {json.loads(line)["id"]: i for i, line in enumerate(lines(f"{name}.jsonl"))}
    for name in ("queries", "documents")
}

run = defaultdict(list)  # query -> documents, best first
for line in lines("bm25.run"):
    query, _, document, *_ = line.split()
    run[query].append(document)
wanted = defaultdict(set)
for line in lines("qrels.txt"):
    query, _, document, grade = line.split()
    if int(grade) > 0:
        wanted[query].add(document)

# One list of pairs for all queries: nothing is padded, and only what BM25 found is scored.
pairs = [(number["queries"][q], number["documents"][d]) for q, found in run.items() for d in found]
query_ids, document_ids = np.array(pairs, dtype=np.int64).T
scores = score_pairs_packed(
    dequantize_int8_per_token(queries.tokens, queries.scale),
    (documents.tokens, documents.scale),
    queries.offsets,
    documents.offsets,
    query_ids,
    document_ids,
    storage="int8",
    q_weights=queries.weights,
)

reranked, at = {}, 0
for query, found in run.items():
    order = np.argsort(-scores[at : at + len(found)], kind="stable")
    reranked[query], at = [found[i] for i in order], at + len(found)


def reciprocal_rank(ranking):
    """The mean over all judged queries of 1 / rank of the first right document, of ten."""
    ranks = [
        next((1 / (i + 1) for i, d in enumerate(ranking.get(q, [])[:10]) if d in right), 0.0)
        for q, right in wanted.items()
    ]
    return sum(ranks) / len(ranks)


before, after = reciprocal_rank(run), reciprocal_rank(reranked)
print(f"{len(run)} queries, {len(pairs)} candidates: MRR@10 {before:.3f} by BM25, {after:.3f} reranked")
assert after > before
