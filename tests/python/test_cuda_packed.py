"""On CUDA tensors: quantized tokens with the bits of the CPU's, packed ones with those of
padded ones, and what hosts' reranking makes of lists.
"""

from __future__ import annotations

import sys
import types

import pytest
import torch
from late_interaction_kernels import MaxSimScorer, _native, maxsim, pack, retrieve, unpack
from late_interaction_kernels._hosts import pylate as host
from late_interaction_kernels.fp8 import quantize_fp8_per_tensor
from late_interaction_kernels.int8 import quantize_int8_per_token
from late_interaction_kernels.topk import maxsim_topk
from test_packing import padded
from test_quantized import KINDS, VIEWS, bits, quantize

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.skipif(not _native.has_device(0), reason="needs the CUDA backend"),
]


def same(got, want):
    """The same bits, wherever they lie."""
    assert got.dtype == want.dtype and got.shape == want.shape
    return torch.equal(bits(got.cpu().reshape(-1)), bits(want.cpu().reshape(-1)))


# ---- quantizers ----


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_of_the_cpu(kind, dtype, view, normalize):
    x = torch.randn(6, 40, 36) * torch.logspace(-6, 3, 40)[:, None]
    x[0, 0], x[1, 2, 3] = 0, -0.0
    x = x.to(dtype)
    for a, b in zip(
        quantize(VIEWS[view](x.cuda()), kind, normalize=normalize),
        quantize(VIEWS[view](x), kind, normalize=normalize),
        strict=True,
    ):
        assert a.is_cuda and same(a, b)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dim", [1, 8, 24, 64, 72, 128, 136, 256, 320, 512, 520, 1024, 1031])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_of_the_cpu_at_every_length(kind, dtype, dim, normalize):
    x = (torch.randn(3, 50, dim) * torch.logspace(-9, 4, 50)[:, None]).to(dtype)
    for a, b in zip(
        quantize(x.cuda(), kind, normalize=normalize), quantize(x, kind, normalize=normalize), strict=True
    ):
        assert same(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite(kind):
    x = torch.randn(4, 16)
    x[0, 3], x[1, 4], x[2, 5] = torch.nan, torch.inf, -torch.inf
    (values, scale), (want, want_scale) = quantize(x.cuda(), kind), quantize(x, kind)
    assert same(values, want) and same(scale[1:], want_scale[1:]) and scale[0].isnan()


@pytest.mark.parametrize("dtype", [None, "float8_e5m2"])
@pytest.mark.parametrize("shape", [(30, 70, 40), (7, 13), (1,), (2, 3, 5, 16)])
def test_one_scale_for_all(dtype, shape):
    x = torch.randn(shape, dtype=torch.float16)
    for a, b in zip(quantize_fp8_per_tensor(x.cuda(), dtype), quantize_fp8_per_tensor(x, dtype), strict=True):
        assert same(a, b)
    x.view(-1)[0] = torch.nan
    assert quantize_fp8_per_tensor(x.cuda(), dtype)[1].isnan()


def test_nothing_is_copied_and_nothing_waits():
    x = torch.randn(2000, 128, 128, device="cuda", dtype=torch.float16)
    quantize_int8_per_token(x[:2])
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.cuda.device(0):
        torch.cuda.set_sync_debug_mode("error")
        try:
            made = quantize_int8_per_token(x, normalize=True)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    results = sum(t.numel() * t.element_size() for t in made)
    assert torch.cuda.max_memory_allocated() - before < results + (4 << 20)


def test_in_a_graph_and_on_a_stream():
    x = torch.randn(9, 30, 128, device="cuda")
    want = quantize_int8_per_token(x), quantize_fp8_per_tensor(x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        quantize_int8_per_token(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = quantize_int8_per_token(x), quantize_fp8_per_tensor(x)
    graph.replay()
    for pair, expected in zip(got, want, strict=True):
        assert all(same(a, b) for a, b in zip(pair, expected, strict=True))


def test_traced_by_operations_of_torch():
    x = torch.randn(3, 20, 64, device="cuda")
    traced = torch.compile(quantize_int8_per_token, backend="eager", fullgraph=True)(x)
    assert all(same(a, b) for a, b in zip(traced, quantize_int8_per_token(x), strict=True))


# ---- packed tokens ----


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("storage", [None, "int8"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dim", [24, 128])
def test_packed_documents_have_the_bits_of_padded_ones(dim, dtype, normalize, storage, masked):
    lengths = torch.randint(0, 200, (60,)).tolist()
    documents = [torch.randn(n, dim, device="cuda").to(dtype) for n in (*lengths, 0, 1, 300)]
    Q = torch.randn(3, 32, dim, device="cuda").to(dtype)
    tokens, offsets = pack(documents)
    assert tokens.is_cuda and offsets.is_cuda
    D, d_mask = (x.cuda() for x in padded([x.cpu() for x in documents]))
    kept = None
    if masked:
        kept = torch.rand(len(tokens), device="cuda") > 0.3
        d_mask = padded([x.cpu() for x in unpack(kept, offsets)])[0].cuda() & d_mask
    q_mask, q_weights = (torch.rand(3, 32, device="cuda") > 0.2), torch.rand(3, 32, device="cuda")
    about = {"normalize": normalize, "storage": storage, "q_weights": q_weights}
    want = maxsim_topk(Q, D, 9, q_mask, d_mask, **about)
    got = maxsim_topk(Q, tokens, 9, q_mask, kept, cu_seqlens_d=offsets, **about)
    assert all(same(a, b) for a, b in zip(got, want, strict=True))
    for chunk in (None, 7):
        found = retrieve(Q, tokens, 9, q_mask, kept, cu_seqlens_d=offsets, chunk=chunk, **about)
        assert all(same(a, b) for a, b in zip(found, want, strict=True))
    some, cu_q = pack(list(Q))
    both = {**about, "q_weights": q_weights.reshape(-1), "cu_seqlens_q": cu_q, "cu_seqlens_d": offsets}
    found = maxsim_topk(some, tokens, 9, q_mask.reshape(-1), kept, **both)
    assert all(same(a, b) for a, b in zip(found, want, strict=True))
    scorer = MaxSimScorer(normalize=normalize)
    scores = scorer.score(Q, D, q_mask, d_mask, storage=storage)
    assert same(scorer.score(Q, tokens, q_mask, kept, storage=storage, cu_seqlens_d=offsets), scores)
    one = scorer(Q[0], tokens, q_mask[0], kept, storage=storage, cu_seqlens_d=offsets)
    torch.testing.assert_close(one, scores[0], rtol=1e-5, atol=1e-4)
    mine = maxsim_topk(
        Q.cpu(), tokens.cpu(), 9, q_mask.cpu(), None if kept is None else kept.cpu(),
        cu_seqlens_d=offsets.cpu(), **{**about, "q_weights": q_weights.cpu()},
    )  # fmt: skip
    torch.testing.assert_close(got[0].cpu(), mine[0], rtol=2e-3, atol=2e-3)


def test_packed_int8_pairs():
    documents = [torch.randn(n, 128, device="cuda") for n in (50, 0, 91, 2)]
    tokens, offsets = pack(documents)
    pair = quantize_int8_per_token(tokens)
    Q = torch.randn(2, 32, 128, device="cuda")
    got = retrieve(Q, pair, 3, storage="int8", cu_seqlens_d=offsets)
    want = retrieve(Q, tokens, 3, storage="int8", cu_seqlens_d=offsets)
    assert all(same(a, b) for a, b in zip(got, want, strict=True))


def test_training_on_packed_documents():
    documents = [torch.randn(n, 64, device="cuda", requires_grad=True) for n in (30, 0, 61)]
    Q = torch.randn(2, 32, 64, device="cuda", requires_grad=True)
    tokens, offsets = pack(documents)
    MaxSimScorer()(Q, tokens, cu_seqlens_d=offsets).sum().backward()
    got = [Q.grad, documents[0].grad, documents[2].grad]
    Q.grad = documents[0].grad = documents[2].grad = None
    D = torch.nn.utils.rnn.pad_sequence(documents, batch_first=True)
    d_mask = torch.arange(61, device="cuda") < torch.tensor([30, 0, 61], device="cuda")[:, None]
    MaxSimScorer()(Q, D, d_mask=d_mask).sum().backward()
    torch.testing.assert_close(got, [Q.grad, documents[0].grad, documents[2].grad])


# ---- reranking ----


@pytest.fixture
def reranking(monkeypatch):
    """What the patch puts where PyLate's ``rerank`` was, in a PyLate of the few parts that it
    meets: the machine with the GPU need not have the whole."""
    rank, tensor = types.ModuleType("pylate.rank.rank"), types.ModuleType("pylate.utils.tensor")
    rank.reshape_embeddings = lambda x: x
    rank.RerankResult = dict
    tensor.convert_to_tensor = lambda x: x
    for name in ("pylate", "pylate.rank", "pylate.utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "pylate.rank.rank", rank)
    monkeypatch.setitem(sys.modules, "pylate.utils.tensor", tensor)

    def untouched(*arguments):
        raise AssertionError("left to PyLate")

    monkeypatch.setitem(host._ORIGINAL, "rerank", untouched)
    monkeypatch.setitem(host._SAVED, "rerank", untouched)
    return host.patched_rerank


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("device", [None, "cuda"])
def test_rerank_packs(reranking, dtype, device):
    torch.manual_seed(3)
    where = "cuda" if device is None else "cpu"
    queries = [torch.randn(n, 128, device=where).to(dtype) for n in (32, 17)]
    candidates = [[torch.randn(n, 128, device=where).to(dtype) for n in (5, 180, 33, 180)] for _ in queries]
    ranked = reranking([list("abcd")] * 2, queries, candidates, device)
    for query, documents, found in zip(queries, candidates, ranked, strict=True):
        D = torch.nn.utils.rnn.pad_sequence(documents, batch_first=True).cuda()
        scores, order = maxsim(query.cuda()[None], D)[0].sort(descending=True)
        assert [x["id"] for x in found] == ["abcd"[i] for i in order.tolist()]
        assert [x["score"] for x in found] == scores.tolist()
