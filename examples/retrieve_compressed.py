"""Top-k over a collection stored in three ways: python examples/retrieve_compressed.py

float32, 8-bit integers with a scale per token, and PLAID's centroid numbers with 4-bit
residuals in the byte order of real indexes. The share of the exact top 10 that each finds is
printed with its bytes per token.
"""

import numpy as np
from late_interaction_kernels import maxsim, retrieve
from late_interaction_kernels.int8 import quantize_int8_per_token
from late_interaction_kernels.plaid import maxsim_residual

rng = np.random.default_rng(1)


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


centroids = unit(rng.standard_normal((64, 64)))
documents = unit(centroids[rng.integers(0, 64, (500, 40))] + 0.08 * rng.standard_normal((500, 40, 64)))
queries = unit(documents[rng.integers(0, 500, 8), :16] + 0.05 * rng.standard_normal((8, 16, 64)))

_, exact = retrieve(queries, documents, 10)
_, small = retrieve(queries, quantize_int8_per_token(documents), 10, normalize=False, storage="int8")

# The codec: nearest centroid, residuals sorted into 16 buckets of equal share, four bits each,
# least significant first.
codes = (documents @ centroids.T).argmax(-1)
residuals = documents - centroids[codes]
edges = np.quantile(residuals, np.arange(1, 16) / 16)
weights = np.quantile(residuals, (np.arange(16) + 0.5) / 16).astype(np.float32)
buckets = np.searchsorted(edges, residuals)
bits = (buckets[..., None] >> np.arange(4)) & 1
packed = np.packbits(bits.astype(np.uint8).reshape(500, 40, -1), axis=-1)
lengths = np.full(500, 40)
scores = maxsim_residual(queries, codes, packed, lengths, centroids, weights, 4, bit_order="colbert")
plaid = np.argsort(-scores, axis=1)[:, :10]


def recall(found):
    return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, exact, strict=True)])


print(f"int8:  {recall(small):.2f} at {64 + 4} bytes a token (float32: {64 * 4})")
print(f"PLAID: {recall(plaid):.2f} at {packed.shape[-1] + 4} bytes a token")
assert recall(small) > 0.9 and recall(plaid) > 0.7
assert np.allclose(maxsim(queries[:1], documents[:1]), maxsim(queries, documents)[:1, :1])
