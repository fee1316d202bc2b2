"""The engine beneath the public functions: a problem's fields, what is plain memory, merged
results, added gradients.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from late_interaction_kernels import _native, maxsim, maxsim_pairs, maxsim_varlen
from late_interaction_kernels._engine import torch_arrays, torch_ops, torch_plain, verbs
from late_interaction_kernels._engine.problem import (
    ARRAYS,
    BIT_ORDERS,
    CHOICES,
    LIST,
    NORMALIZE,
    Codec,
    Problem,
    Tokens,
    argmax_dtype,
    batched,
    detached,
    fields,
    problem_of,
    sliced,
)


def test_one_order_of_fields():
    """Python's lists, the two functions between the forms, the extension's enum and the
    operators agree.
    """
    names = (*ARRAYS, *CHOICES)
    q = Tokens("q", "q_mask", "q_weights", "q_scale", "q_offsets", "len_q")
    codec = Codec("centroids", "bucket_weights", "nbits", "colbert")
    d = Tokens("d", "d_mask", None, "d_scale", "d_offsets", "len_d", "codes", codec)
    problem = Problem(q, d, "list_q", "list_d", "pairing", "normalize", "precision")
    assert names == _native.FIELDS and names[-1] == "bit_order"
    flat = (*names[:-1], BIT_ORDERS.index("colbert"))
    assert fields(problem) == flat and problem_of(flat) == problem
    for name in ("score", "topk", "grad"):
        schema = getattr(torch.ops.late_interaction_kernels, name).default._schema
        assert tuple(argument.name for argument in schema.arguments)[: len(names)] == names


def test_tokens_change_together():
    x = torch.randn(4, 5, 8, requires_grad=True)
    codes = torch.zeros(4, 5, dtype=torch.int32)
    tokens = Tokens(x, x[..., 0] > 0, x[..., 0], torch.tensor(2.0), codes=codes)
    part, one = sliced(tokens, 1, 3), batched(tokens)
    assert (
        part.data.shape == (2, 5, 8)
        and part.mask.shape == part.weights.shape == part.codes.shape == (2, 5)
        and part.scale.dim() == 0
    )
    packed = sliced(tokens._replace(offsets=torch.tensor([0, 2, 2, 4])), 1, 3)
    assert packed.data is x and packed.offsets.tolist() == [2, 2, 4]
    assert one.data.shape == (1, 4, 5, 8) and one.weights.shape == (1, 4, 5) and one.scale is tokens.scale
    problem = detached(Problem(tokens, Tokens(x.detach().numpy()), pairing=LIST))
    assert (
        not problem.q.data.requires_grad and not problem.q.weights.requires_grad and problem.pairing == LIST
    )


def test_what_is_between_a_tensor_and_its_memory():
    from torch._subclasses.fake_tensor import FakeTensorMode

    class Tagged(torch.Tensor):
        pass

    x = torch.randn(2, 3)
    way, transformed, dispatched = torch_arrays.way, torch_arrays.TRANSFORMED, torch_arrays.DISPATCHED
    assert way(x, None, torch.nn.Parameter(x)) == 0
    assert way(x, x.as_subclass(Tagged)) == way(None, x.to("meta")) == dispatched
    with FakeTensorMode():
        assert way(x) == dispatched
    seen = []
    torch.func.grad(lambda x: (seen.append(way(x)), x.sum())[1])(x)
    with torch.autograd.forward_ad.dual_level():
        seen.append(way(x))
    assert seen == [transformed] * 2 and way(x) == 0


# ---- merged results ----

VALUES = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.5, 1e-45, -3e38, np.inf, -np.inf, np.nan])


@st.composite
def partial_results(draw):
    parts, queries, k_in = (draw(st.integers(0, most)) for most in (4, 3, 5))
    count = parts * queries * k_in
    values = draw(st.lists(VALUES, min_size=count, max_size=count))
    # An id is there once, but for those that are to be ignored.
    ids = draw(st.permutations(range(count)))
    ignored = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    ids = [-draw(st.integers(1, 9)) if no else i for i, no in zip(ids, ignored)]
    shape = parts, queries, k_in
    return np.array(values, np.float32).reshape(shape), np.array(ids, np.int64).reshape(shape)


@given(partial_results(), st.integers(1, 9), st.booleans())
def test_merged_bit_for_bit(partial, k, smallest):
    """The C function, and the operations of torch that other devices do it with."""
    want = [np.empty((partial[0].shape[1], k), dtype) for dtype in (np.float32, np.int64)]
    _native.merge_topk(*partial, k, smallest, *want)
    tensors = tuple(map(torch.from_numpy, partial))
    for values, ids in (
        verbs.merge_topk(*partial, k, smallest),
        verbs.merge_topk(*tensors, k, smallest),
        verbs.merge_topk(*(x.mT.contiguous().mT for x in tensors), k, smallest),
        torch_plain.merge_topk(*tensors, k, smallest),
    ):
        assert np.array_equal(np.asarray(ids), want[1])
        assert np.array_equal(np.asarray(values).view(np.int32), want[0].view(np.int32))


def test_merging_is_traced():
    values, ids = torch.randn(2, 3, 4), torch.arange(24).view(2, 3, 4)
    compiled = torch.compile(
        lambda v, i: verbs.merge_topk(v, i, 5, False), fullgraph=True, backend="aot_eager"
    )
    for got, want in zip(compiled(values, ids), verbs.merge_topk(values, ids, 5, False)):
        assert torch.equal(got, want)


# ---- added gradients ----


def whole_numbers(shape, dtype=torch.float32):
    """Sums and products of these are exact, in whatever order."""
    return torch.randint(-4, 5, shape).to(dtype)


def training_problem(kind, dtype=torch.float32):
    weights = whole_numbers((2, 3)) if kind != "packed" else whole_numbers((6,))
    if kind == "packed":
        q = Tokens(whole_numbers((6, 8), dtype), None, weights, None, torch.tensor([0, 2, 6]), 4)
        return Problem(q, Tokens(whole_numbers((9, 8), dtype), None, None, None, torch.tensor([0, 4, 8]), 5))
    d = whole_numbers((4, 5, 8), dtype)
    normalize = NORMALIZE if kind == "normalized" else 0
    mask = torch.rand(4, 5) > 0.4
    return Problem(
        Tokens(whole_numbers((2, 3, 8), dtype), None, weights), Tokens(d, mask), normalize=normalize
    )


def gradients_of(problem):
    return tuple(torch.empty_like(x) for x in (problem.q.data, problem.d.data, problem.q.weights))


@pytest.mark.parametrize("served", ["library", "torch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["padded", "packed", "normalized"])
def test_gradients_are_added(monkeypatch, kind, dtype, served):
    """Of two shards of the scores, say: grad_q is the sum over both."""
    if served == "torch":
        monkeypatch.setattr(torch_ops, "served", lambda x: False)
    problem = training_problem(kind, dtype)
    scores, argmax = verbs.score(problem, True)
    assert argmax.dtype == getattr(torch, argmax_dtype(problem))
    grad_scores = whole_numbers(scores.shape)
    alone = gradients_of(problem)
    verbs.grad(problem, grad_scores, argmax, alone)
    want = torch_ops.run_grad(*fields(problem), grad_scores, argmax, True, True, True)
    for got, there in zip(alone, want):
        assert torch.equal(got, there)
    before = tuple(whole_numbers(x.shape, x.dtype) for x in alone)
    total = tuple(x.clone() for x in before)
    assert verbs.grad(problem, grad_scores, argmax, total, accumulate=True) is None
    for got, there, more in zip(total, before, alone):
        if kind == "normalized":  # the sum is rounded once
            torch.testing.assert_close(
                got, there + more, rtol=0.01 if dtype != torch.float32 else 1e-5, atol=1e-2
            )
        else:
            assert torch.equal(got, there + more)
    one = total[1].clone()
    verbs.grad(problem, grad_scores, argmax, (None, one, None), accumulate=True)
    if kind != "normalized":
        assert torch.equal(one, total[1] + alone[1])


def test_gradients_of_numpy_are_added():
    problem = training_problem("padded")
    scores, argmax = verbs.score(problem, True)
    grad_scores = whole_numbers(scores.shape)
    want = gradients_of(problem)
    verbs.grad(problem, grad_scores, argmax, want)
    ours = problem_of([x.numpy() if isinstance(x, torch.Tensor) else x for x in fields(problem)])
    into = tuple(np.ones(x.shape, np.float32) for x in want)
    verbs.grad(ours, grad_scores.numpy(), argmax.numpy(), into, accumulate=True)
    for got, there in zip(into, want):
        assert np.array_equal(got, there.numpy() + 1)


@pytest.mark.parametrize("frozen", ["none", "q", "d"])
@pytest.mark.parametrize("kind", ["all", "masks", "weights", "candidates", "packed", "pairs"])
def test_the_short_way_back_gives_the_bits_of_the_long_one(kind, frozen, monkeypatch):
    """Of contiguous gradients of scores and of those of a sum, which are one number."""
    q, d = (
        torch.randn(3, 5, 16, requires_grad=frozen != "q"),
        torch.randn(4, 7, 16, requires_grad=frozen != "d"),
    )
    q_mask, d_mask = torch.rand(3, 5) > 0.3, torch.rand(4, 7) > 0.3
    weights = torch.rand(3, 5, requires_grad=True)
    scored = {
        "all": lambda: maxsim(q, d, normalize=True),
        "masks": lambda: maxsim(q, d, q_mask, d_mask, normalize=True),
        "weights": lambda: maxsim(q, d, q_weights=weights, normalize=True),
        "candidates": lambda: maxsim(q, d[:3, None].expand(3, 2, 7, 16)),
        "packed": lambda: maxsim_varlen(
            q.view(-1, 16), d.view(-1, 16), torch.tensor([0, 4, 15]), torch.tensor([0, 20, 20, 28]), 11, 20
        ),
        "pairs": lambda: maxsim_pairs(q, d[:3], normalize=True),
    }[kind]
    wanted = [x for x in (q, d, weights) if x.requires_grad and (x is not weights or kind == "weights")]

    def both():
        scores = scored()
        grad = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1))
        own = torch.autograd.grad(scores, wanted, grad, retain_graph=True)
        return own + torch.autograd.grad(scores.sum(), wanted)

    long = torch_ops._train_backward
    monkeypatch.setattr(torch_ops, "_train_backward", None)
    short = both()
    monkeypatch.setattr(torch_ops, "_train_backward", long)
    monkeypatch.setattr(_native, "maxsim_backward", lambda *a: None)
    for one, other in zip(short, both(), strict=True):
        assert torch.equal(one, other) and one.abs().sum() > 0
