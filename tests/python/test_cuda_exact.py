"""Top-k by documents in two copies on a GPU: the bits of the full copy there."""

from __future__ import annotations

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

from late_interaction_kernels import pack, retrieve
from late_interaction_kernels.exact import two_copies
from test_exact import STORAGES, clustered, same


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("normalize", [True, False])
def test_bits_of_the_full_copy(storage, dtype, normalize):
    D, Q = clustered(3000, 40, 128, dtype=dtype).cuda(), clustered(5, 32, 128, 1, dtype).cuda()
    for k in (1, 10, 100):
        for largest in (True, False):
            same(Q, D, k, storage, normalize=normalize, largest=largest)
    same(Q[0], D, 10, storage, normalize=normalize)


@pytest.mark.parametrize("storage", STORAGES)
def test_layouts_masks_weights(storage):
    g = torch.Generator().manual_seed(3)
    D, Q = clustered(300, 20, 32).cuda(), clustered(5, 8, 32, 1).cuda()
    d_mask = torch.rand(300, 20, generator=g).cuda() < 0.7
    q_mask = torch.rand(5, 8, generator=g).cuda() < 0.8
    d_mask[7], q_mask[2] = False, False
    weights = torch.rand(5, 8, generator=g).cuda() * 2 - 0.5
    same(Q, D, 20, storage, q_mask=q_mask, d_mask=d_mask, q_weights=weights, return_argmax=True)
    tokens, offsets = pack([D[i, : i % 20] for i in range(300)])
    same(Q, tokens, 20, storage, offsets=offsets, q_weights=weights)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adversaries(storage, normalize, dtype):
    g = torch.Generator().manual_seed(5)
    base = clustered(64, 6, 32)
    ties = base[:1].expand(200, 6, 32)
    near = base[:1] * (1 + torch.randint(-2, 3, (200, 1, 1), generator=g) * 2.0**-8)
    norms = base * 10.0 ** torch.randint(-25, 26, (64, 6, 1), generator=g)
    outliers = base.clone()
    outliers[:, 2, 5] = 1e4
    broken = base.clone()
    broken[3, 1, 1], broken[9, 5, 0], broken[11, 0, 31] = torch.nan, torch.inf, -torch.inf
    D = torch.cat([ties, near, norms, outliers, torch.zeros(20, 6, 32), broken])
    D = D[torch.randperm(len(D), generator=g)].to("cuda", dtype)
    Q = torch.cat([base[:2], -base[:1], 1e-20 * base[:1], 1e20 * base[:1], broken[3:4]]).to("cuda", dtype)
    for k in (1, 50, 300, len(D)):
        same(Q, D, k, storage, normalize=normalize)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_precision_of_f32(precision):
    torch.set_float32_matmul_precision(precision)
    try:
        same(clustered(4, 16, 64, 1).cuda(), clustered(2000, 16, 64).cuda(), 10, "int8")
    finally:
        torch.set_float32_matmul_precision("highest")


def test_in_a_graph():
    """Nothing can wait there: the same results, all documents scored in full."""
    D, Q = clustered(500, 16, 64).cuda().half(), clustered(2, 8, 64, 1).cuda().half()
    copies, want = two_copies(D), retrieve(Q, D, 5)
    retrieve(Q, copies, 5, exact=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = retrieve(Q, copies, 5, exact=True)
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
