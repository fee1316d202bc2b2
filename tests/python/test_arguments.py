"""Bad arguments: the right exception, naming the argument, before anything is computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from late_interaction_kernels import maxsim, maxsim_pairs, maxsim_varlen
from late_interaction_kernels.backward import maxsim_backward_lowmem, maxsim_backward_unified
from late_interaction_kernels.forward import maxsim_forward
from late_interaction_kernels.fused_head import maxsim_from_hidden
from late_interaction_kernels.mps import maxsim_inference_mps, maxsim_mps, metal
from late_interaction_kernels.padded import pack_padded
from late_interaction_kernels.plaid import Codec, CompressedTokens, plaid_approx_score
from late_interaction_kernels.score_pairs import score_pairs_packed

Q, D, D4 = torch.randn(2, 3, 8), torch.randn(4, 5, 8), torch.randn(2, 6, 5, 8)
RAGGED = torch.nested.nested_tensor([D[0], D[1, :2]], layout=torch.jagged)
GRAD = [False, True]


def ones(*shape, dtype=torch.bool):
    return torch.ones(shape, dtype=dtype)


@pytest.mark.parametrize("grad", GRAD)
@pytest.mark.parametrize(
    "args, kwargs, kind, match",
    [
        ((Q[0, 0], D), {}, ValueError, r"Q must have shape \[Nq, Lq, d\] or \[Lq, d\], got \(8,\)"),
        ((Q[None], D), {}, ValueError, "Q must have shape"),
        ((Q, D[0, 0]), {}, ValueError, "D must have shape"),
        ((Q, D4[None]), {}, ValueError, "D must have shape"),
        ((Q[0], D4), {}, ValueError, r"Q must have shape \[Nq, Lq, d\] when D is"),
        ((Q, D4[:1]), {}, ValueError, r"same batch: Q.shape\[0\] is 2, D.shape\[0\] is 1"),
        ((Q, D[..., :7]), {}, ValueError, r"same dim: Q.shape\[-1\] is 8, D.shape\[-1\] is 7"),
        ((Q.int(), D), {}, TypeError, "Q has dtype int32"),
        ((Q, D.to(torch.complex64)), {}, TypeError, "D has dtype complex64"),
        ((Q, D.bool()), {}, TypeError, "D has dtype bool"),
        ((Q, D.to(torch.float8_e4m3fn)), {}, TypeError, "D has dtype float8_e4m3fn"),
        ((Q, D.tolist()), {}, TypeError, "D must be a torch.Tensor or a numpy.ndarray, got list"),
        ((None, D), {}, TypeError, "Q must be a torch.Tensor or a numpy.ndarray, got None"),
        ((Q, D.numpy()), {}, TypeError, "D is of numpy, but Q is of torch"),
        ((Q, D, ones(1, 3)), {}, ValueError, r"q_mask must have shape \(2, 3\)"),
        ((Q, D, ones(3)), {}, ValueError, "q_mask must have shape"),
        ((Q, D, ones(2, 4)), {}, ValueError, "q_mask must have shape"),
        ((Q, D, None, ones(4, 4)), {}, ValueError, r"d_mask must have shape \(4, 5\)"),
        ((Q, D, None, ones(1, 5)), {}, ValueError, "d_mask must have shape"),
        ((Q, D4, None, ones(12, 5)), {}, ValueError, r"d_mask must have shape \(2, 6, 5\)"),
        ((Q, D, ones(2, 3, dtype=torch.float32)), {}, TypeError, "q_mask has dtype float32.*q_weights"),
        ((Q, D, None, ones(4, 5, dtype=torch.float16)), {}, TypeError, "d_mask has dtype float16"),
        (
            (Q, D, None, 2 * ones(4, 5, dtype=torch.int64)),
            {},
            ValueError,
            "d_mask of dtype int64 must hold only 0 and 1",
        ),
        ((Q, D, -ones(2, 3, dtype=torch.int8)), {}, ValueError, "q_mask of dtype int8"),
        ((Q, D, [True]), {}, TypeError, "q_mask must be a torch.Tensor"),
        ((Q, D.to("meta")), {}, ValueError, "D is on meta, Q is on cpu"),
        ((Q, D, ones(2, 3).to("meta")), {}, ValueError, "q_mask is on meta"),
        ((Q, D), {"backward": "fast"}, ValueError, "backward must be"),
        ((Q, D), {"q_weights": torch.ones(2, 4)}, ValueError, "q_weights must have shape"),
        ((Q, D), {"q_weights": ones(2, 3)}, TypeError, "q_weights has dtype bool"),
        ((Q, D), {"storage": "fp4"}, ValueError, "storage must be"),
        ((Q, (D, ones(4, 5))), {"storage": "int8"}, TypeError, r"D\[0\] has dtype float32, must be int8"),
        ((Q, (D.to(torch.int8), torch.ones(4))), {"storage": "int8"}, ValueError, r"D\[1\] must have shape"),
        (
            (Q, (D.to(torch.int8), None)),
            {"storage": "int8"},
            TypeError,
            r"D\[1\] must be a torch.Tensor.*got None",
        ),
        ((Q, (D.to(torch.int8), np.ones((4, 5)))), {"storage": "int8"}, TypeError, r"D\[1\] is of numpy"),
        ((Q, (D.to(torch.int8), ones(4, 5))), {"storage": "int8"}, TypeError, r"D\[1\] has dtype bool"),
        ((Q, (D, D)), {}, TypeError, 'D is a tuple, which needs storage="int8" or "fp8"'),
        ((Q, D.to_sparse()), {}, TypeError, "D must be a dense tensor"),
        ((Q, RAGGED), {}, TypeError, "D must be a dense tensor"),
    ],
)
def test_maxsim(args, kwargs, kind, match, grad):
    if grad and isinstance(args[0], torch.Tensor) and args[0].is_floating_point():
        args = (args[0].clone().requires_grad_(), *args[1:])
    with pytest.raises(kind, match=match):
        maxsim(*args, **kwargs)


@pytest.mark.parametrize(
    "args, kind, match",
    [
        ((Q.numpy(), D.numpy().astype(np.int32)), TypeError, "D has dtype int32"),
        ((Q.numpy(), D.numpy()[..., :4]), ValueError, "same dim"),
        ((Q.numpy(), D.numpy(), np.ones((2, 3), np.float32)), TypeError, "q_mask has dtype float32"),
        ((Q.numpy(), D.numpy(), None, np.full((4, 5), 3)), ValueError, "d_mask of dtype int64"),
        ((Q.numpy(), D.numpy(), None, np.ones((4, 4), bool)), ValueError, "d_mask must have shape"),
        ((Q.numpy(), D), TypeError, "D is of torch, but Q is of numpy"),
    ],
)
def test_maxsim_of_arrays(args, kind, match):
    with pytest.raises(kind, match=match):
        maxsim(*args)


@pytest.mark.parametrize(
    "args, match",
    [
        ((Q[0], D), r"Q must have shape \[B, L, d\]"),
        ((Q, D4), r"D must have shape \[B, L, d\]"),
        ((Q, D), r"Q.shape\[0\] is 2, D.shape\[0\] is 4"),
        ((Q, D[:2, :, :3]), "same dim"),
        ((Q, D[:2], None, ones(4, 5)), "d_mask must have shape"),
    ],
)
def test_pairs(args, match):
    with pytest.raises(ValueError, match=match):
        maxsim_pairs(*args)


QP, DP = torch.randn(6, 8), torch.randn(9, 8)
CU_Q, CU_D = torch.tensor([0, 2, 6]), torch.tensor([0, 4, 9])


@pytest.mark.parametrize(
    "change, kind, match",
    [
        ({"Q_packed": Q}, ValueError, "Q_packed must have shape"),
        ({"D_packed": DP[:, :4]}, ValueError, "same dim"),
        ({"cu_seqlens_q": torch.tensor([0, 7])}, ValueError, "cu_seqlens_q ends at 7, Q_packed has 6 tokens"),
        ({"cu_seqlens_d": torch.tensor([0, 5, 3])}, ValueError, "cu_seqlens_d must be ascending"),
        (
            {"cu_seqlens_d": torch.tensor([-1, 3])},
            ValueError,
            "cu_seqlens_d must be ascending and not negative",
        ),
        (
            {"cu_seqlens_q": torch.tensor([], dtype=torch.int32)},
            ValueError,
            "cu_seqlens_q must hold at least one",
        ),
        ({"cu_seqlens_q": torch.tensor([0.0, 2.0])}, TypeError, "cu_seqlens_q has dtype float32"),
        ({"cu_seqlens_q": torch.tensor([[0, 2]])}, ValueError, "cu_seqlens_q must have shape"),
        ({"cu_seqlens_q": [0, 2]}, TypeError, "cu_seqlens_q must be a torch.Tensor"),
        ({"max_seqlen_q": 3}, ValueError, "max_seqlen_q is 3, which is smaller than the longest sequence"),
        ({"max_seqlen_d": -1}, ValueError, "max_seqlen_d must be at least 0, got -1"),
        ({"max_seqlen_q": 6.0}, TypeError, "max_seqlen_q must be an integer, got float"),
        ({"max_seqlen_d": "9"}, TypeError, "max_seqlen_d must be an integer, got str"),
        ({"D_packed": DP.int()}, TypeError, "D_packed has dtype int32"),
        ({"D_packed": (DP, DP)}, TypeError, 'D_packed is a tuple, which needs storage="int8" or "fp8"'),
        ({"q_weights": torch.ones(5)}, ValueError, "q_weights must have shape"),
    ],
)
def test_packed(change, kind, match):
    arguments = {"Q_packed": QP, "D_packed": DP, "cu_seqlens_q": CU_Q, "cu_seqlens_d": CU_D, **change}
    with pytest.raises(kind, match=match):
        maxsim_varlen(**arguments)
    with pytest.raises(kind, match=match):
        score_pairs_packed(**arguments, pair_q_idx=torch.tensor([0]), pair_d_idx=torch.tensor([0]))


@pytest.mark.parametrize(
    "left, right, kind, match",
    [
        (torch.tensor([2]), torch.tensor([0]), ValueError, r"pair_q_idx\[0\] is 2, must be 0 to 1"),
        (torch.tensor([0]), torch.tensor([-1]), ValueError, r"pair_d_idx\[0\] is -1"),
        (torch.tensor([0, 1]), torch.tensor([0]), ValueError, "must have the same length, got 2 and 1"),
        (torch.tensor([[0]]), torch.tensor([0]), ValueError, "pair_q_idx must have shape"),
        (torch.tensor([0.0]), torch.tensor([0]), TypeError, "pair_q_idx has dtype float32"),
        ([0], torch.tensor([0]), TypeError, "pair_q_idx must be a torch.Tensor"),
        (torch.tensor([0]), np.array([0]), TypeError, "pair_d_idx is of numpy"),
    ],
)
def test_pair_indices(left, right, kind, match):
    with pytest.raises(kind, match=match):
        score_pairs_packed(QP, DP, CU_Q, CU_D, left, right)


@pytest.mark.parametrize(
    "args, match",
    [
        (
            (torch.randn(4), torch.zeros(1, 2, dtype=torch.long), torch.tensor([1])),
            "query_centroid_scores must have shape",
        ),
        ((torch.randn(4, 3), torch.zeros(2, dtype=torch.long), torch.tensor([1])), "codes must have shape"),
        (
            (torch.randn(4, 3), torch.zeros(1, 2, dtype=torch.long), torch.tensor([3])),
            r"doc_lengths\[0(, 0)?\] is 3",
        ),
        (
            (torch.randn(4, 3), torch.full((1, 2), 4), torch.tensor([1])),
            r"codes\[0, 0\] is 4, must be 0 to 3",
        ),
        ((torch.randn(4, 3), torch.full((1, 2), -1), torch.tensor([1])), r"codes\[0, 0\] is -1"),
        ((torch.randn(4, 3), torch.zeros(1, 2), torch.tensor([1])), "codes has dtype float32"),
    ],
)
def test_approx(args, match):
    with pytest.raises((ValueError, TypeError), match=match):
        plaid_approx_score(*args)


def test_approx_mask():
    args = torch.randn(4, 3), torch.zeros(1, 2, dtype=torch.long), torch.tensor([1])
    with pytest.raises(ValueError, match=r"shaped like query_centroid_scores\.swapaxes\(-1, -2\) "):
        plaid_approx_score(*args, q_mask=torch.ones(4, dtype=torch.bool))


def test_compressed_tokens_where_they_are_not_taken():
    codec = Codec(torch.eye(4), None, 0)
    D = CompressedTokens(torch.zeros(1, 2, dtype=torch.long), None, codec)
    for storage in (None, "int8"):
        with pytest.raises(TypeError, match="D is a CompressedTokens, which retrieve and maxsim_topk"):
            maxsim(torch.randn(1, 2, 4), D, storage=storage)


def test_backward():
    scores, argmax = maxsim_forward(Q, D, save_argmax=True)
    good = {"grad_scores": scores, "Q": Q, "D": D, "argmax": argmax}
    for change, kind, match in (
        ({"grad_scores": scores[:1]}, ValueError, r"grad_scores must have shape \(2, 4\)"),
        ({"grad_scores": scores.int()}, TypeError, "grad_scores has dtype int32"),
        ({"D": D[..., :4]}, ValueError, r"D must have shape \(4, 5, 8\)"),
        ({"D": D[:3], "kd_layout": True}, ValueError, r"D must have shape \(8, 5, 8\)"),
        ({"Q": Q.int()}, TypeError, "Q has dtype int32"),
        ({"Q": Q[0]}, ValueError, "Q must have shape"),
        ({"argmax": argmax.long()}, TypeError, "argmax has dtype torch.int64"),
        ({"argmax": argmax + 5}, ValueError, r"argmax\[0, 0\] is"),
        ({"q_mask": ones(3)}, ValueError, "q_mask must have shape"),
        ({"q_weights": ones(2, 3)}, TypeError, "q_weights has dtype bool"),
    ):
        for function in (maxsim_backward_unified, maxsim_backward_lowmem):
            with pytest.raises(kind, match=match):
                function(**{**good, **change})
    with pytest.raises(TypeError, match=r"Q must be a torch.Tensor, got ndarray"):
        maxsim_backward_unified(*(x.numpy() for x in good.values()))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: maxsim(Q[0], D4), r"got \(3, 8\).*needs Q to be"),
        (lambda: maxsim(Q, D4[:1]), r"Q.shape\[0\] is 2, D.shape\[0\] is 1.*D.shape\[0\] == Q.shape\[0\]"),
        (lambda: maxsim_pairs(Q, D), r"Q.shape\[0\] is 2, D.shape\[0\] is 4.*Q.shape\[0\] == D.shape\[0\]"),
        (lambda: maxsim(Q, D, ones(2, 4)), r"\(2, 3\), got \(2, 4\).*q_mask must be"),
        (lambda: maxsim_from_hidden(Q, D, ones(7, 8)), r"\(8, 8\), got \(7, 8\).*W must be"),
        (
            lambda: pack_padded(Q, D4, torch.tensor([3, 0]), torch.full((2, 6), 5), validate=True),
            r"query_lengths must all be > 0.*query_lengths\[1\] is 0",
        ),
    ],
)
def test_messages_have_the_existing_package_s_words(call, words):
    """Its tests look for them; both values are there as well."""
    with pytest.raises(ValueError, match=words):
        call()


def test_forward_and_mps():
    with pytest.raises(ValueError, match="D must have shape"):
        maxsim_forward(Q, D4)
    assert torch.equal(maxsim_mps(Q, D), maxsim(Q, D, normalize=True))
    assert not maxsim_inference_mps(Q.clone().requires_grad_(), D, normalize=False).requires_grad
    assert not metal.is_available() and metal.supports(Q.half(), D.half()) and not metal.supports(Q, D)
    for function, arguments in (
        (metal.maxsim_inference_metal, (Q, D)),
        (metal.maxsim_train_metal, (Q, D)),
        (metal.maxsim_backward_metal, (Q, Q, D, D)),
    ):
        with pytest.raises(RuntimeError, match=f"{function.__name__} requires Metal"):
            function(*arguments)


def test_the_extension_itself_is_safe_to_misuse():
    """Nothing that reaches the C side unchecked may read or write out of bounds."""
    from late_interaction_kernels import _native

    none, zeros = [None] * 12, [0] * 6
    out = np.zeros((2, 4), np.float32)
    q, d = Q.numpy(), D.numpy()
    for args in [
        (q, d, *none, 0, *zeros, np.zeros((2, 3), np.float32), None),
        (q, d, *none, 0, *zeros, out.astype(np.float64), None),
        (q, d, *none, 0, *zeros, out, np.zeros((2, 4, 2), np.int32)),
        (q, d, *none, 9, *zeros, out, None),
        (q, d, *none, 1, *zeros, out, None),
        (q, d, np.ones((2, 2), bool), *none[1:], 0, *zeros, out, None),
        (q, d, np.ones((2, 3), np.uint8), *none[1:], 0, *zeros, out, None),
        (q, d[..., :4], *none, 0, *zeros, out, None),
        (q, "no", *none, 0, *zeros, out, None),
        (q, (1, 2), *none, 0, *zeros, out, None),
        (q, d, *none, 0, *zeros, out),
        (q, d, *none, 3, *zeros, out, None),
        (q, d.astype(np.int32), *none, 0, *zeros, out, None),
        (np.zeros((1, 1, 1, 1, 1), np.float32), d, *none, 0, *zeros, out, None),
    ]:
        with pytest.raises((ValueError, TypeError, NotImplementedError)):
            _native.score(*args)
    readonly = out.copy()
    readonly.flags.writeable = False
    with pytest.raises(TypeError):
        _native.score(q, d, *none, 0, *zeros, readonly, None)
