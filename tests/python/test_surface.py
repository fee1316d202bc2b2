"""The public surface is that of the existing package, but for what surface.py explains."""

from __future__ import annotations

import copy
import inspect
import json

import pytest
import surface
import torch
from late_interaction_kernels import backward, fp8, mps, plaid, reference
from late_interaction_kernels.score_pairs import score_pairs_packed

THEIRS = json.loads(surface.FACTS.read_text())["modules"]


def test_every_difference_is_meant():
    found = surface.differences(THEIRS, surface.ours(THEIRS))
    assert found and surface.explained(found, surface.MEANT) == ([], [])


def change_name(ours):
    ours["topk"]["topk"] = ours["topk"].pop("maxsim_topk")


def drop_module(ours):
    del ours["backward.lowmem"]


def parameter(change):
    def at(ours):
        change(ours["padded"]["pack_padded"]["parameters"])

    return at


def drop_method(ours):
    del ours["retrieve"]["MaxSimScorer"]["methods"]["score"]


def drop_field(ours):
    ours["padded"]["PackedBatch"]["fields"].pop()


def returned(ours):
    ours["varlen"]["maxsim_varlen"]["returns"] = "None"


@pytest.mark.parametrize(
    "change, line",
    [
        (change_name, "topk.maxsim_topk: missing"),
        (change_name, "topk.topk: added"),
        (drop_module, "backward.lowmem: missing module"),
        (parameter(lambda p: p.pop(0)), "padded.pack_padded(queries): missing"),
        (parameter(lambda p: p.reverse()), "padded.pack_padded: order queries, documents, "),
        (
            parameter(lambda p: p[0].__setitem__(1, "keyword_only")),
            "padded.pack_padded(queries): kind positional",
        ),
        (
            parameter(lambda p: p[-1].__setitem__(2, "True")),
            "padded.pack_padded(validate): default False -> True",
        ),
        (
            parameter(lambda p: p.append(["x", "keyword_only", None])),
            "padded.pack_padded(x): added, keyword_only",
        ),
        (drop_method, "retrieve.MaxSimScorer.score: missing"),
        (drop_field, "padded.PackedBatch: fields Q_packed, "),
        (returned, "varlen.maxsim_varlen: returns torch.Tensor -> None"),
    ],
)
def test_what_the_comparison_sees(change, line):
    ours = copy.deepcopy(surface.ours(THEIRS))
    change(ours)
    unexplained, _ = surface.explained(surface.differences(THEIRS, ours), surface.MEANT)
    assert any(found.startswith(line) for found in unexplained), unexplained


def test_an_explanation_of_nothing_is_told():
    found = surface.differences(THEIRS, surface.ours(THEIRS))
    assert surface.explained(found, {**surface.MEANT, "topk.maxsim_topk(k): *": "no longer"})[1]


def test_modules_of_the_backward_pass_and_of_mps():
    from late_interaction_kernels.backward import lowmem, unified
    from late_interaction_kernels.mps import compile_dispatch

    assert lowmem.maxsim_backward_lowmem is backward.maxsim_backward_lowmem
    assert unified.maxsim_backward_unified is backward.maxsim_backward_unified
    assert unified.maxsim_backward_unified_reference is backward.maxsim_backward_unified_reference
    assert compile_dispatch.maxsim_mps is mps.maxsim_mps
    assert compile_dispatch.maxsim_inference_mps is mps.maxsim_inference_mps
    q, d = torch.randn(2, 3, 8), torch.randn(4, 5, 8)
    want = reference.maxsim_reference(q, d, normalize=True)
    torch.testing.assert_close(compile_dispatch.maxsim_mps(q, d), want)
    torch.testing.assert_close(compile_dispatch.maxsim_inference_mps(q.requires_grad_(), d), want)


def test_dequantization_by_name():
    x = torch.tensor([[1.0, -2.0], [0.5, 0.25]])
    values, scale = fp8.quantize_fp8_per_tensor(x)
    torch.testing.assert_close(
        fp8.dequantize_fp8_per_tensor(X_fp8=values, scale=scale), x, rtol=0.05, atol=0.01
    )
    values, scales = fp8.quantize_fp8_per_token(x)
    torch.testing.assert_close(
        fp8.dequantize_fp8_per_token(X_fp8=values, scale=scales), x, rtol=0.05, atol=0.01
    )


def test_the_reference_of_a_pair_list():
    q, d = torch.randn(9, 8, requires_grad=True), torch.randn(12, 8, requires_grad=True)
    cu_q, cu_d = torch.tensor([1, 4, 4, 8]), torch.tensor([0, 5, 11])
    i, j = torch.tensor([2, 0, 0, 1], dtype=torch.int32), torch.tensor([1, 1, 0, 0], dtype=torch.int32)
    weights = torch.rand(9)
    got = reference.maxsim_reference_scatter(q, d, cu_q, cu_d, i, j, q_weights=weights)
    for n, (a, b) in enumerate(zip(i.tolist(), j.tolist())):
        rows = slice(int(cu_q[a]), int(cu_q[a + 1]))
        similarity = q[rows] @ d[int(cu_d[b]) : int(cu_d[b + 1])].T
        best = similarity.amax(-1) if similarity.numel() else similarity.new_zeros(similarity.shape[0])
        torch.testing.assert_close(got[n], (best * weights[rows]).sum())
    fast = score_pairs_packed(q, d, cu_q, cu_d, i, j, q_weights=weights)
    torch.testing.assert_close(got, fast)
    for a, b in zip(torch.autograd.grad(got.sum(), [q, d]), torch.autograd.grad(fast.sum(), [q, d])):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(
        reference.maxsim_reference_scatter(q, d, cu_q, cu_d, i, j, normalize=True),
        score_pairs_packed(q, d, cu_q, cu_d, i, j, normalize=True),
    )
    assert reference.maxsim_reference_scatter(q, d, cu_q, cu_d, i[:0], j[:0]).shape == (0,)
    for bad in (3, -1):
        with pytest.raises(IndexError, match=f"pair 1 is query {bad} of 3 and document 0 of 2"):
            reference.maxsim_reference_scatter(q, d, cu_q, cu_d, torch.tensor([0, bad]), torch.tensor([0, 0]))
    with pytest.raises(ValueError):
        reference.maxsim_reference_scatter(q, d, cu_q, cu_d, i, j[:2])
    full = reference.maxsim_reference_varlen(Q=q, D=d, cu_seqlens_q=cu_q, cu_seqlens_d=cu_d)
    torch.testing.assert_close(
        full[i.long(), j.long()], reference.maxsim_reference_scatter(q, d, cu_q, cu_d, i, j)
    )


def test_references_of_plaid_are_the_references():
    assert plaid.maxsim_residual_reference is reference.maxsim_residual_reference
    assert plaid.plaid_approx_score_reference is reference.plaid_approx_score_reference
    assert "nbits" in inspect.signature(plaid.maxsim_residual_reference).parameters
    with pytest.raises(AttributeError):
        plaid.no_such_name  # noqa: B018
