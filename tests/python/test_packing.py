"""Lists of unequal arrays: packed, scored with the bits of padded ones, taken apart again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from late_interaction_kernels import MaxSimScorer, maxsim_varlen, pack, retrieve, unpack
from late_interaction_kernels.int8 import quantize_int8_per_token
from late_interaction_kernels.plaid import maxsim_residual_varlen
from late_interaction_kernels.score_pairs import score_pairs_packed
from late_interaction_kernels.topk import maxsim_topk

MADE = {"torch": lambda x: x, "numpy": lambda x: x.numpy()}


def padded(sequences):
    lengths = torch.tensor([x.shape[0] for x in sequences])
    longest = int(lengths.max())
    return (
        torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True),
        torch.arange(longest) < lengths[:, None],
    )


@st.composite
def collections(draw):
    torch.manual_seed(draw(st.integers(0, 10**6)))
    dim, dtype = draw(st.sampled_from([1, 24, 128])), draw(st.sampled_from([torch.float32, torch.bfloat16]))
    lengths = draw(st.lists(st.integers(0, 21), min_size=1, max_size=9).filter(any))
    return [torch.randn(n, dim).to(dtype) for n in lengths], torch.randn(2, 5, dim).to(dtype)


@given(collections(), st.booleans(), st.sampled_from([None, "int8"]), st.booleans())
def test_packed_documents_have_the_bits_of_padded_ones(found, normalize, storage, masked):
    documents, Q = found
    (tokens, offsets), (D, d_mask) = pack(documents), padded(documents)
    k, kept = len(documents), None
    if masked:
        kept = torch.rand(tokens.shape[0]) > 0.3
        d_mask = padded([x for x in unpack(kept, offsets)])[0] & d_mask
    q_mask, q_weights = torch.rand(Q.shape[:2]) > 0.2, torch.rand(Q.shape[:2])
    about = {"normalize": normalize, "storage": storage, "q_weights": q_weights, "return_argmax": True}
    want = maxsim_topk(Q, D, k, q_mask, d_mask, **about)
    got = maxsim_topk(Q, tokens, k, q_mask, kept, cu_seqlens_d=offsets, **about)
    for a, b in zip(got, want):
        assert torch.equal(a, b)
    # queries packed as well, and bounds given
    some, cu_q = pack(list(Q))
    flat = {"q_weights": q_weights.reshape(-1), "max_seqlen_q": 9, "max_seqlen_d": 30}
    both = {**about, **flat, "cu_seqlens_q": cu_q, "cu_seqlens_d": offsets}
    for a, b in zip(maxsim_topk(some, tokens, k, q_mask.reshape(-1), kept, **both), want):
        assert torch.equal(a[..., :5] if a.dim() == 3 else a, b)
    scorer = MaxSimScorer(normalize=normalize)
    scores = scorer.score(Q, D, q_mask, d_mask, storage=storage)
    assert torch.equal(scorer.score(Q, tokens, q_mask, kept, storage=storage, cu_seqlens_d=offsets), scores)
    assert torch.equal(
        scorer(Q[0], tokens, q_mask[0], kept, storage=storage, cu_seqlens_d=offsets), scores[0]
    )


@pytest.mark.parametrize("framework", ["torch", "numpy"])
@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_retrieve_of_a_list(framework, chunk):
    documents = [torch.randn(n, 32) for n in (5, 0, 12, 1)]
    queries = [torch.randn(n, 32) for n in (3, 7)]
    want = retrieve(
        padded(queries)[0], padded(documents)[0], 3, *[padded(x)[1] for x in (queries, documents)]
    )
    made = MADE[framework]
    (Q, cu_q), (D, cu_d) = pack(list(map(made, queries))), pack(list(map(made, documents)))
    got = retrieve(Q, D, 3, cu_seqlens_q=cu_q, cu_seqlens_d=cu_d, chunk=chunk)
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(got, want))
    scorer = MaxSimScorer()
    for a, b in zip(scorer.retrieve(Q, D, 3, chunk=chunk, cu_seqlens_q=cu_q, cu_seqlens_d=cu_d), want):
        assert np.array_equal(np.asarray(a), np.asarray(b))
    one = retrieve(made(queries[0]), D, 3, cu_seqlens_d=cu_d)
    assert one[0].shape == (3,) and np.array_equal(np.asarray(one[1]), np.asarray(want[1][0]))


def test_int8_pairs_are_packed_with_their_scales():
    documents = [torch.randn(n, 32) for n in (5, 9, 2)]
    tokens, offsets = pack(documents)
    pairs = [quantize_int8_per_token(x) for x in documents]
    values, scales = (pack([pair[i] for pair in pairs])[0] for i in range(2))
    Q = torch.randn(1, 4, 32)
    got = retrieve(Q, (values, scales), 2, storage="int8", cu_seqlens_d=offsets)
    want = retrieve(Q, tokens, 2, storage="int8", cu_seqlens_d=offsets)
    assert all(torch.equal(a, b) for a, b in zip(got, want))


def test_training_on_packed_documents():
    documents = [torch.randn(n, 16, requires_grad=True) for n in (3, 0, 6)]
    Q = torch.randn(2, 4, 16, requires_grad=True)
    tokens, offsets = pack(documents)
    MaxSimScorer()(Q, tokens, cu_seqlens_d=offsets).sum().backward()
    got = [Q.grad, documents[0].grad, documents[2].grad]
    Q.grad = documents[0].grad = documents[2].grad = None
    D, d_mask = padded(documents)
    MaxSimScorer()(Q, D, d_mask=d_mask).sum().backward()
    torch.testing.assert_close(got, [Q.grad, documents[0].grad, documents[2].grad])


def test_ids_of_packed_tokens():
    scorer = MaxSimScorer(mask_pad_token=0)
    documents, ids = [torch.randn(3, 8), torch.randn(2, 8)], [torch.tensor([5, 0, 7]), torch.tensor([0, 9])]
    (D, offsets), (d_ids, _) = pack(documents), pack(ids)
    Q, q_ids = torch.randn(1, 2, 8), torch.ones(1, 2, dtype=torch.int64)
    got = scorer.forward_with_ids(Q, D, q_ids, d_ids, cu_seqlens_d=offsets)
    want = scorer.forward_with_ids(Q, padded(documents)[0], q_ids, padded(ids)[0])
    assert torch.equal(got, want)


@pytest.mark.parametrize("framework", ["torch", "numpy"])
def test_unpack_gives_views(framework):
    made = MADE[framework]
    parts = [made(torch.randn(n, 4)) for n in (2, 0, 3)]
    tokens, offsets = pack(parts)
    assert str(offsets.dtype).endswith("int64")
    back = unpack(tokens, offsets)
    assert [x.shape for x in back] == [x.shape for x in parts]
    assert all((a == b).all() for a, b in zip(back, parts))
    back[0][0] = 7
    assert (tokens[0] == 7).all()
    with pytest.raises(ValueError, match="offsets ends at 5, tokens has 4 tokens"):
        unpack(tokens[:4], offsets)


@pytest.mark.parametrize(
    "call, kind, match",
    [
        (
            lambda x: pack(x),
            TypeError,
            r"must be a list of arrays \[L_i, d\], got one Tensor of shape \(3, 4\)",
        ),
        (lambda x: pack([]), ValueError, "at least 1"),
        (
            lambda x: pack([x, x[:, :2]]),
            ValueError,
            r"sequences\[0\] is \(3, 4\), sequences\[1\] is \(3, 2\)",
        ),
        (lambda x: pack([x, x.half()]), TypeError, r"sequences\[0\] is float32, sequences\[1\] is float16"),
        (lambda x: pack([x, x.numpy()]), TypeError, r"sequences\[1\] is of numpy"),
        (lambda x: pack([x, [1.0]]), TypeError, r"sequences\[1\] must be a torch.Tensor or a numpy.ndarray"),
        (lambda x: pack([x[None]]), ValueError, r"sequences\[0\] must have shape .*, got \(1, 3, 4\)"),
        (
            lambda x: pack([x, x[None]]),
            ValueError,
            r"sequences\[0\] is \(3, 4\), sequences\[1\] is \(1, 3, 4\)",
        ),
        (lambda x: pack([x, x[0, 0]]), ValueError, r"sequences\[0\] is \(3, 4\), sequences\[1\] is \(\)"),
        (lambda x: pack(None), TypeError, r"sequences must be a list of arrays \[L_i, d\], got NoneType"),
        (lambda x: pack("abc"), TypeError, "must be a list of arrays .* got str"),
        (lambda x: pack({"a": x}), TypeError, "must be a list of arrays .* got dict"),
        (lambda x: pack(3), TypeError, "must be a list of arrays .* got int"),
        (lambda x: pack([x, x.to("meta")]), ValueError, "is on meta"),
    ],
)
def test_pack_refuses(call, kind, match):
    with pytest.raises(kind, match=match):
        call(torch.ones(3, 4))


LIST = [torch.ones(2, 4), torch.ones(3, 4)]
TOKENS = torch.ones(5, 4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: retrieve(TOKENS, LIST, 1),
        lambda: MaxSimScorer()(LIST, TOKENS),
        lambda: maxsim_varlen(LIST, TOKENS, torch.tensor([0, 5]), torch.tensor([0, 5])),
    ],
)
def test_a_list_in_the_place_of_tokens_is_told_of_pack(call):
    with pytest.raises(TypeError, match=r"got list\. late_interaction_kernels\.pack\([QD]\) makes tokens"):
        call()


@pytest.mark.parametrize("lengths", [[3, 2], [2, 3, 0], [5, 0]])
@pytest.mark.parametrize("framework", ["torch", "numpy"])
def test_lengths_in_the_place_of_offsets_are_recognized(lengths, framework):
    made = MADE[framework]
    lengths = made(torch.tensor(lengths))
    for call in (
        lambda: retrieve(made(TOKENS), made(TOKENS), 1, cu_seqlens_d=lengths),
        lambda: maxsim_varlen(made(TOKENS), made(TOKENS), lengths, lengths),
        lambda: unpack(made(TOKENS), lengths),
    ):
        with pytest.raises(
            ValueError, match=r"looks like lengths, not offsets: their sum is 5.*pack\(list\)"
        ):
            call()


def test_what_needs_offsets_or_arrays_says_so():
    with pytest.raises(ValueError, match=r"got \(5, 4\): packed documents need cu_seqlens_d"):
        retrieve(TOKENS, TOKENS, 1)
    with pytest.raises(TypeError, match=r"cu_seqlens_d must be .* got list\. Make it one: .*torch\.tensor"):
        maxsim_varlen(TOKENS, TOKENS, torch.tensor([0, 5]), [0, 5])
    with pytest.raises(ValueError, match=r"d_mask must have shape \(5,\)"):
        retrieve(
            TOKENS, TOKENS, 1, d_mask=torch.ones(2, 3, dtype=torch.bool), cu_seqlens_d=torch.tensor([0, 5])
        )


def test_a_bound_needs_offsets():
    d = TOKENS[None]
    for call in (maxsim_topk, retrieve, MaxSimScorer().retrieve):
        with pytest.raises(ValueError, match="max_seqlen_d is 3, must be None without cu_seqlens_d"):
            call(d, d, 1, max_seqlen_d=3)
    for call in (MaxSimScorer(), MaxSimScorer().score):
        with pytest.raises(ValueError, match="max_seqlen_q is 3, must be None without cu_seqlens_q"):
            call(d, TOKENS, cu_seqlens_d=torch.tensor([0, 5]), max_seqlen_q=3)


def test_compiling_without_bounds_says_what_to_pass():
    call = torch.compile(lambda q, d, cu: maxsim_varlen(q, d, cu, cu), fullgraph=True)
    with pytest.raises(Exception, match="Pass max_seqlen_q"):
        call(TOKENS, TOKENS, torch.tensor([0, 5]))
    bound = torch.compile(lambda q, d, cu: maxsim_varlen(q, d, cu, cu, 5, 5), fullgraph=True)
    assert bound(TOKENS, TOKENS, torch.tensor([0, 5])).tolist() == [[20.0]]


WRONG_OFFSETS = [
    ([0, 7, 12], "len_max is 5, sequence 0 has 7 tokens"),
    ([0, 5, 10], r"offsets\[2\] is 10"),
    ([0, 5, 3], r"offsets\[2\] is 3, less than d.offsets\[1\], which is 5"),
    ([-1, 3, 7], r"offsets\[0\] is -1"),
    ([0, 8, 9], "len_max is 5, sequence 0 has 8 tokens"),
]


@pytest.mark.parametrize("storage", ["dense", "int8", "listed", "retrieve", "scorer", "compressed"])
def test_compiled_calls_refuse_wrong_offsets_in_one_way(storage):
    """Nothing can be looked at while it is traced: the library refuses them when it runs."""
    Q, D, cu_q, Q3 = torch.randn(6, 8), torch.randn(9, 8), torch.tensor([0, 2, 6]), torch.randn(2, 3, 8)
    codec = torch.randn(4, 8), torch.randn(16), 4
    codes, residuals = torch.randint(0, 4, (9,)), torch.randint(0, 256, (9, 4), dtype=torch.uint8)
    pairs = torch.tensor([0, 1])
    bounds = {"max_seqlen_q": 4, "max_seqlen_d": 5}
    call = {
        "dense": lambda cu: maxsim_varlen(Q, D, cu_q, cu, **bounds),
        "int8": lambda cu: maxsim_varlen(Q, D, cu_q, cu, **bounds, storage="int8"),
        "listed": lambda cu: score_pairs_packed(Q, D, cu_q, cu, pairs, pairs, **bounds),
        "retrieve": lambda cu: retrieve(Q3, D, 2, cu_seqlens_d=cu, max_seqlen_d=5)[0],
        "scorer": lambda cu: MaxSimScorer()(Q3, D, cu_seqlens_d=cu, max_seqlen_d=5),
        "compressed": lambda cu: maxsim_residual_varlen(Q3, codes, residuals, cu, *codec, max_seqlen_d=5),
    }[storage]
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    good = torch.tensor([0, 4, 9])
    assert torch.equal(compiled(good), call(good))
    for offsets, match in WRONG_OFFSETS:
        with pytest.raises(ValueError, match=match):
            compiled(torch.tensor(offsets))
        with pytest.raises(ValueError, match="cu_seqlens_d"):
            call(torch.tensor(offsets))
