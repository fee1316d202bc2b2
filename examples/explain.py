"""Why a document is ranked where it is: python examples/explain.py [PAGE.html]

In a notebook the last line of `explained()` is the heat map itself: what `lik.explain` gives
draws itself there (`_repr_html_`), in a frame of its own, without scripts from elsewhere.
"""

import json
import sys
from pathlib import Path

import late_interaction_kernels as lik
from late_interaction_kernels.int8 import dequantize_int8_per_token

DEMO = Path(__file__).resolve().parent.parent / "demo"


def tokens_of(name, wanted):
    """Vectors and words of one sequence of the demo's files."""
    saved = lik.load(DEMO / f"{name}.safetensors")
    rows = [json.loads(x) for x in (DEMO / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    i = [row["id"] for row in rows].index(wanted)
    these = slice(saved.offsets[i], saved.offsets[i + 1])
    return dequantize_int8_per_token(saved.tokens[these], saved.scale[these]), rows[i]["tokens"]


def explained(query="q26", document="scipy.sparse.linalg.LaplacianNd"):
    Q, q_tokens = tokens_of("queries", query)
    D, d_tokens = tokens_of("documents", document)
    return lik.explain(Q, D, q_tokens, d_tokens)


if __name__ == "__main__":
    found = explained()
    for match in sorted(found.matches, key=lambda m: -m.adds)[:5]:
        print(f"{match.query_text:>12} -> {match.document_text:<12} {match.adds:.3f}")
    print(f"score {found.score:.3f}")
    if len(sys.argv) > 1:
        found.save(sys.argv[1])
