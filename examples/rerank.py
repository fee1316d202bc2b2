"""Rerank the candidates of each query with NumPy alone: python examples/rerank.py

Documents differ in length: they are padded, and a mask says which tokens count. The last lines
show which document token each query token matched.
"""

import numpy as np
from late_interaction_kernels import maxsim

rng = np.random.default_rng(0)


def unit(*shape):
    x = rng.standard_normal(shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


queries = unit(4, 32, 128)
lengths = rng.integers(20, 180, size=(4, 50))
candidates = unit(4, 50, 180, 128)  # 50 candidates a query
mask = np.arange(180) < lengths[..., None]
candidates[2, 7, :32] = queries[2] + 0.1 * unit(32, 128)  # one document answers query 2
mask[2, 7, :32] = True

scores, matched = maxsim(queries, candidates, d_mask=mask, normalize=True, return_argmax=True)
order = np.argsort(-scores, axis=1)[:, :3]
for i, best in enumerate(order):
    print(f"query {i}:", ", ".join(f"candidate {j} ({scores[i, j]:.2f})" for j in best))
print("query 2, its best candidate: token -> token", matched[2, order[2, 0], :8].tolist())
assert order[2, 0] == 7
