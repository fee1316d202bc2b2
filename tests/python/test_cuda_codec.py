"""Training a codec, encoding and decoding on CUDA."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from late_interaction_kernels import plaid, reference
from test_compressed import BITS, DTYPES, ORDERS, written_out
from test_cuda import needs_backend
from test_train_codec import sample

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    needs_backend,
]


def on_host(codec):
    return plaid.Codec(*(x.cpu() if isinstance(x, torch.Tensor) else x for x in codec))


def residual_of(tokens, codec):
    """Mean squared residual beside the nearest centroids."""
    units = codec.centroids.to(tokens.device).double()
    nearest = (tokens.double() @ units.T).argmax(1)
    return float((tokens.double() - units[nearest]).square().sum(1).mean())


def same(a, b):
    return all((x is None and y is None) or torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("nbits", [0, *BITS])
def test_a_codec(nbits):
    tokens = sample(6000, 32)
    codec = plaid.train_codec(tokens.cuda(), nbits, n_centroids=64)
    host = plaid.train_codec(tokens, nbits, n_centroids=64)
    assert codec.centroids.is_cuda and codec.centroids.dtype == torch.float32
    torch.testing.assert_close(codec.centroids.norm(dim=-1).cpu(), torch.ones(64))
    assert residual_of(tokens, on_host(codec)) < 1.01 * residual_of(tokens, host)
    if nbits:
        assert codec.weights.is_cuda and codec.cutoffs.is_cuda
        torch.testing.assert_close(codec.weights.cpu(), host.weights, rtol=0.03, atol=2e-3)
        both = torch.cat([codec.weights, codec.cutoffs]).sort().values
        assert torch.equal(both[::2], codec.weights) and torch.equal(both[1::2], codec.cutoffs)
    shaped = plaid.train_codec(tokens.view(60, 100, 32).cuda(), nbits, n_centroids=64)
    assert same(shaped[:2], codec[:2])


def test_few_tokens_give_the_bits_of_the_cpu():
    """Sums are in float64 on both."""
    tokens = sample(900, 24)
    host, codec = (plaid.train_codec(x, 4, n_centroids=32) for x in (tokens, tokens.cuda()))
    torch.testing.assert_close(codec.centroids.cpu(), host.centroids, rtol=0, atol=1e-6)
    torch.testing.assert_close(codec.cutoffs.cpu(), host.cutoffs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_same_bits_a_hundred_times(precision):
    tokens = sample(20000, 128).cuda()
    mask = torch.rand(20000, device="cuda") > 0.3

    def run():
        codec = plaid.train_codec(tokens, 4, n_centroids=300, mask=mask, precision=precision)
        found = plaid.encode(tokens, codec, mask=mask, inv_norms_dtype="float32", precision=precision)
        return codec.centroids, codec.weights, codec.cutoffs, *found

    first = run()
    assert all(same(run(), first) for _ in range(100))


@pytest.mark.parametrize("precision, loss", [("highest", 1e-6), ("high", 1e-4), ("medium", 8e-3)])
@pytest.mark.parametrize("dtypes", [(a, b) for a in DTYPES for b in DTYPES])
def test_codes_are_the_nearest(dtypes, precision, loss):
    dtypes = [DTYPES[name] for name in dtypes]
    tokens = sample(5000, 128).cuda().to(dtypes[0])
    centroids = torch.nn.functional.normalize(torch.randn(700, 128, device="cuda"), dim=-1).to(dtypes[1])
    codec = plaid.Codec(centroids, torch.zeros(2, device="cuda"), 1, cutoffs=torch.zeros(1, device="cuda"))
    codes, _ = plaid.encode(tokens, codec, precision=precision)
    products = tokens.double() @ centroids.double().T
    found = products.gather(1, codes.long()[:, None])[:, 0]
    assert (products.amax(1) - found).max() < loss
    if dtypes[0] == dtypes[1] == torch.float16 or precision == "highest":
        assert (codes == products.argmax(1)).float().mean() > 0.999


def test_ties_go_to_the_lowest_centroid():
    centroids = torch.eye(16, 64, device="cuda").repeat(5, 1)
    codec = plaid.Codec(centroids, None, 0)
    tokens = torch.eye(16, 64, device="cuda").repeat(20, 1)
    assert torch.equal(plaid.encode(tokens, codec)[0].long().cpu(), torch.arange(16).repeat(20))
    assert not plaid.encode(torch.zeros(100, 64, device="cuda"), codec)[0].any()
    broken = torch.full((3, 64), torch.nan, device="cuda")
    assert not plaid.encode(broken, codec)[0].any()


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("nbits", [0, *BITS])
@pytest.mark.parametrize("dim", [24, 128, 200])
def test_encoding_and_decoding(dim, nbits, order, dtype, normalize):
    tokens = sample(700, dim).cuda()
    codec = plaid.train_codec(tokens, nbits, n_centroids=50, bit_order=order)
    tokens = (tokens * (3 if normalize else 1)).to(DTYPES[dtype])
    codes, residuals, norms = plaid.encode(tokens, codec, normalize=normalize, inv_norms_dtype="float32")
    counted = torch.nn.functional.normalize(tokens.float(), dim=-1) if normalize else tokens.float()
    left = counted - codec.centroids[codes.long()]
    decoded = plaid.decode(codes, residuals, codec)
    torch.testing.assert_close(norms, 1 / decoded.norm(dim=-1))
    assert torch.equal(decoded, written_out(codes, residuals, codec))
    for name, to in DTYPES.items():
        half = plaid.decode(codes, residuals, codec, dtype=name)
        assert torch.equal(half, written_out(codes, residuals, codec, to)) and half.dtype == to
        unit = plaid.decode(codes, residuals, codec, dtype=name, normalize=True)
        torch.testing.assert_close(unit, torch.nn.functional.normalize(half.float(), dim=-1).to(to))
    if nbits:
        found = reference.unpack_residuals_reference(residuals, nbits, dim, bit_order=order).long()
        want = torch.bucketize(left, codec.cutoffs)
        near = (left[..., None] - codec.cutoffs).abs().amin(-1) < 1e-6
        assert torch.equal(found[~near], want[~near]) and (normalize or torch.equal(found, want))
        if order == "colbert":
            bits = (found[..., None] >> torch.arange(nbits, device="cuda") & 1).to(torch.uint8).cpu().numpy()
            assert np.array_equal(np.packbits(bits.reshape(700, -1), axis=1), residuals.cpu().numpy())


def test_forms_of_tokens():
    tokens = sample(600).cuda()
    codec = plaid.train_codec(tokens, 2, n_centroids=32)
    codes, residuals = plaid.encode(tokens, codec)
    shaped = plaid.encode(tokens.view(2, 3, 100, 24), codec)
    assert shaped[0].shape == (2, 3, 100) and shaped[1].shape == (2, 3, 100, 6)
    assert torch.equal(shaped[0].flatten(), codes) and torch.equal(shaped[1].flatten(0, 2), residuals)
    one = plaid.encode(tokens[0], codec)
    assert one[0].shape == () and plaid.decode(*one, codec).shape == (24,)
    none = plaid.encode(tokens[:0], codec)
    assert none[0].shape == (0,) and none[1].shape == (0, 6)
    assert plaid.decode(*none, codec).shape == (0, 24)
    apart = torch.stack([tokens, tokens], -1)[..., 0]
    assert torch.equal(plaid.encode(apart, codec)[1], residuals)
    assert torch.equal(plaid.train_codec(apart, 2, n_centroids=32).centroids, codec.centroids)
    turned = plaid.encode(tokens.flip(0)[1:], codec)
    assert torch.equal(turned[0], codes.flip(0)[1:])
    mask = torch.arange(600, device="cuda") % 3 > 0
    holed = torch.where(mask[:, None], tokens, torch.nan)
    masked = plaid.encode(holed, codec, mask=mask)
    assert torch.equal(masked[0], codes * mask) and torch.equal(masked[1], residuals * mask[:, None])
    few, kept = plaid.train_codec(holed, 2, n_centroids=32, mask=mask), tokens[mask]
    assert same(few[:2], plaid.train_codec(kept, 2, n_centroids=32)[:2])
    for dtype in ("uint16", "int64"):
        typed = plaid.encode(tokens, codec, codes_dtype=dtype)[0]
        assert typed.dtype == getattr(torch, dtype) and torch.equal(typed.int(), codes)
        assert torch.equal(plaid.decode(typed, residuals, codec), plaid.decode(codes, residuals, codec))
    half = plaid.encode(tokens, codec, inv_norms_dtype="float16")[2]
    assert half.dtype == torch.float16


def test_many_chunks_are_as_one():
    """Rows are copied a chunk at a time; what a chunk is shows in no bit."""
    tokens = sample(150_000, 128).cuda()
    codec = plaid.train_codec(tokens[:20_000], 4, n_centroids=256)
    codes, residuals = plaid.encode(tokens, codec)
    parts = [plaid.encode(x, codec) for x in tokens.split(40_001)]
    assert torch.equal(torch.cat([p[0] for p in parts]), codes)
    assert torch.equal(torch.cat([p[1] for p in parts]), residuals)
    decoded = plaid.decode(codes, residuals, codec)
    assert torch.equal(decoded, written_out(codes, residuals, codec))
    assert (decoded - tokens).norm(dim=-1).mean() < 0.1


def test_codes_out_of_range_make_nan():
    tokens = sample(100).cuda()
    codec = plaid.train_codec(tokens, 2, n_centroids=8)
    codes, residuals = plaid.encode(tokens, codec)
    codes[3], codes[5] = 8, -1
    decoded = plaid.decode(codes, residuals, codec)
    wrong = torch.zeros(100, dtype=torch.bool, device="cuda")
    wrong[3] = wrong[5] = True
    assert decoded[wrong].isnan().all() and not decoded[~wrong].isnan().any()


def test_codes_that_are_looked_at(run):
    code = """
import torch
from late_interaction_kernels import plaid
codec = plaid.Codec(torch.ones(8, 16, device="cuda"), None, 0)
codes = torch.arange(5, device="cuda")
assert plaid.decode(codes, None, codec).sum() == 80
codes[3] = 8
try:
    plaid.decode(codes, None, codec)
except ValueError as error:
    print(error)
"""
    done = run(code, LIK_CHECK="1")
    assert "is 8, must be 0 to 7" in done.stdout, done.stderr


def test_streams_and_graphs():
    tokens = sample(30_000, 64).cuda()
    codec = plaid.train_codec(tokens, 4, n_centroids=128)
    codes, residuals = plaid.encode(tokens, codec)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        other = plaid.train_codec(tokens, 4, n_centroids=128)
        found = plaid.encode(tokens, other)
    stream.synchronize()
    assert same(other[:2], codec[:2]) and same(found, (codes, residuals))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        trained = plaid.train_codec(tokens, 4, n_centroids=128)
        encoded = plaid.encode(tokens, trained)
        decoded = plaid.decode(*encoded, trained)
    for x in (trained.centroids, trained.weights, *encoded, decoded):
        x.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert same(trained[:2], codec[:2]) and same(encoded, (codes, residuals))
    assert torch.equal(decoded, plaid.decode(codes, residuals, codec))
    tokens.copy_(tokens.flip(0))
    graph.replay()
    torch.cuda.synchronize()
    assert same(trained[:2], plaid.train_codec(tokens, 4, n_centroids=128)[:2])


def test_the_codec_refuses():
    tokens = sample(100).cuda()
    codec = plaid.train_codec(tokens, 2, n_centroids=8)
    with pytest.raises(ValueError, match="n_centroids is 101, there are 100 tokens"):
        plaid.train_codec(tokens, n_centroids=101)
    with pytest.raises(ValueError, match=r"codec.centroids is on cpu, tokens is on cuda:0|on cpu"):
        plaid.encode(tokens, on_host(codec))
    with pytest.raises(ValueError, match=r"codec\.cutoffs"):
        plaid.encode(tokens, codec._replace(cutoffs=codec.cutoffs.cpu()))
