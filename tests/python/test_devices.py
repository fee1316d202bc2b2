"""What cannot be looked at without waiting: lengths, offsets, codes and indices in device
memory.

Asked here of CPU tensors whose values are out of sight, of the library and of torch operations;
test_cuda.py asks the same of CUDA tensors.
"""

from __future__ import annotations

import pytest
import torch
from entries import entries, parts
from late_interaction_kernels import _native, maxsim, maxsim_padded, reference
from late_interaction_kernels._engine import torch_arrays, torch_ops
from late_interaction_kernels.padded import pack_padded

# (entry, argument, its wrong values, the scores that are NaN: of queries or of documents, how
# the error begins)
WRONG = [
    ("padded", "query_lengths", lambda x: put(x, 1, 4), (1, ...), r"query_lengths\[1\] is 4, must be 0 to 3"),
    ("padded", "query_lengths", lambda x: put(x, 0, -1), (0, ...), r"query_lengths\[0\] is -1"),
    (
        "padded",
        "doc_lengths",
        lambda x: put(x, (1, 2), 6),
        (1, 2),
        r"doc_lengths\[1, 2\] is 6, must be 0 to 5",
    ),
    (
        "padded",
        "doc_lengths",
        lambda x: put(x, (0, 5), -7),
        (0, 5),
        r"doc_lengths\[0, 5\] is -7, must be 0 to 5",
    ),
    (
        "varlen",
        "cu_seqlens_d",
        lambda x: put(x, 3, 12),
        (..., 2),
        r"cu_seqlens_d ends at 12, D_packed has 9 tokens.*\[3\] is 12",
    ),
    (
        "varlen",
        "cu_seqlens_d",
        lambda x: put(x, 0, -2),
        (..., 0),
        r"cu_seqlens_d must be .*: cu_seqlens_d\[0\] is -2",
    ),
    (
        "varlen",
        "cu_seqlens_q",
        lambda x: put(x, 2, 1),
        (1, ...),
        r"cu_seqlens_q must be .*cu_seqlens_q\[2\] is 1, cu_seqlens_q\[1\] is 2",
    ),
    ("list", "cu_seqlens_d", lambda x: put(x, 3, 12), ([0, 2],), r"cu_seqlens_d ends at 12"),
    ("list", "pair_q_idx", lambda x: put(x, 1, 2), (1,), r"pair_q_idx\[1\] is 2, must be 0 to 1"),
    ("list", "pair_d_idx", lambda x: put(x, 2, -1), (2,), r"pair_d_idx\[2\] is -1, must be 0 to 2"),
    ("residual", "doc_lengths", lambda x: put(x, 2, 6), (..., 2), r"doc_lengths\[2\] is 6, must be 0 to 5"),
    ("residual", "doc_lengths", lambda x: put(x, 0, -1), (..., 0), r"doc_lengths\[0\] is -1, must be 0 to 5"),
    ("residual", "codes", lambda x: put(x, (2, 0), 7), (..., 2), r"codes\[2, 0\] is 7, must be 0 to 6"),
    ("residual", "codes", lambda x: put(x, (0, 4), -1), (..., 0), r"codes\[0, 4\] is -1, must be 0 to 6"),
    ("residual", "codes", lambda x: put(x, (1, 4), -1), None, None),  # no real token: nobody looks
    (
        "residual varlen",
        "codes_flat",
        lambda x: put(x, 6, 2**31),
        (..., 2),
        r"codes_flat\[6\] is 2147483648, must be 0 to 6",
    ),
    (
        "residual varlen",
        "cu_seqlens_d",
        lambda x: put(x, 3, 21),
        (..., 2),
        r"cu_seqlens_d ends at 21, codes_flat has 20",
    ),
    ("residual varlen", "cu_seqlens_d", lambda x: put(x, 0, -3), (..., 0), r"cu_seqlens_d\[0\] is -3"),
    ("approx", "doc_lengths", lambda x: put(x, 3, 9), (3,), r"doc_lengths\[3\] is 9, must be 0 to 5"),
]


def put(x, at, value):
    x = x.clone()
    x[at] = value
    return x


@pytest.fixture(params=["library", "torch"])
def out_of_sight(request, monkeypatch):
    """CPU tensors as if they lay on a device."""
    monkeypatch.setattr(torch_arrays, "on_host", lambda x: False)
    monkeypatch.setattr(_native, "maxsim", lambda *a: None)
    if request.param == "torch":
        monkeypatch.setattr(torch_ops, "served", lambda p: False)
    return request.param


@pytest.mark.parametrize("name, argument, change, where, error", WRONG)
@pytest.mark.parametrize("grad", [False, True])
def test_out_of_range_is_nan(out_of_sight, name, argument, change, where, error, grad):
    """Those scores are NaN, all others keep their bits, and no gradient comes of a length, an
    offset or an index.
    """
    function, tensors = entries()[name]
    if out_of_sight == "library" and (name in ("varlen", "list") or argument == "cu_seqlens_d"):
        pytest.skip("the CPU library looks, as test_seen asks")
    first = next(iter(tensors))
    if grad:
        tensors = {**tensors, first: tensors[first].clone().requires_grad_()}
    want, got = (
        parts(function(**{**tensors, argument: x}))[0] for x in (tensors[argument], change(tensors[argument]))
    )
    bad = torch.zeros(want.shape, dtype=torch.bool)
    if where is not None:
        bad[where] = True
    assert torch.equal(got.isnan(), bad)
    assert torch.equal(got[~bad], want[~bad])
    if grad and name != "approx":
        (gradient,) = torch.autograd.grad(torch.where(bad, 0, got).sum(), tensors[first])
        assert gradient.isfinite().all()


@pytest.mark.parametrize("kind", ["torch", "numpy"])
@pytest.mark.parametrize("name, argument, change, where, error", [case for case in WRONG if case[4]])
def test_seen(name, argument, change, where, error, kind):
    """On a CPU the entry is named, with its value and what it must be, at every call."""
    function, tensors = entries()[name]
    tensors = {**tensors, argument: change(tensors[argument])}
    if kind == "numpy":
        tensors = {k: x.numpy() for k, x in tensors.items()}
    for _ in range(2):
        with pytest.raises(ValueError, match=error):
            function(**tensors)


@pytest.mark.parametrize("name, argument, change, where, error", [case for case in WRONG if case[4]])
def test_checked(monkeypatch, out_of_sight, name, argument, change, where, error):
    """LIK_CHECK=1 waits, looks, and says what a CPU says."""
    monkeypatch.setenv("LIK_CHECK", "1")
    function, tensors = entries()[name]
    with pytest.raises(ValueError, match=error):
        function(**{**tensors, argument: change(tensors[argument])})


@pytest.mark.parametrize("name", ["varlen", "list", "residual varlen"])
def test_longer_than_was_said_is_nan(monkeypatch, name):
    monkeypatch.setattr(torch_arrays, "on_host", lambda x: False)
    monkeypatch.setattr(torch_ops, "served", lambda p: False)
    function, tensors = entries()[name]
    got = parts(function.func(**{**function.keywords, "max_seqlen_d": 4}, **tensors))[0]
    assert bool(got.isnan().any()) and not bool(got.isnan().all())


def test_approximate_codes_out_of_range_count_as_the_first_centroid(out_of_sight):
    function, tensors = entries()["approx"]
    codes = put(put(tensors["codes"], (0, 1), -1), (2, 0), 7)
    want = function(**{**tensors, "codes": put(put(tensors["codes"], (0, 1), 0), (2, 0), 0)})
    assert torch.equal(function(**{**tensors, "codes": codes}), want)


def test_an_argmax_out_of_range_contributes_nothing(monkeypatch, out_of_sight):
    if out_of_sight == "library":
        pytest.skip("the CPU library looks")
    function, tensors = entries()["backward"]
    beyond, none = (put(tensors["argmax"], (slice(None), 1), x) for x in (5, -1))
    for got, want in zip(
        function(**{**tensors, "argmax": beyond}), function(**{**tensors, "argmax": none}), strict=True
    ):
        assert torch.equal(got, want)
    monkeypatch.setenv("LIK_CHECK", "1")
    with pytest.raises(ValueError, match=r"argmax\[0, 1\] is 5, must be -1 to 4"):
        function(**{**tensors, "argmax": beyond})


def test_no_centroids(out_of_sight):
    function, tensors = entries()["residual"]
    assert function(**{**tensors, "centroids": tensors["centroids"][:0]}).isnan().all()


def test_a_list_of_nothing(out_of_sight):
    if out_of_sight == "library":
        pytest.skip("the CPU library looks")
    function, tensors = entries()["list"]
    scores, argmax = function(**{**tensors, "cu_seqlens_d": torch.tensor([0])})
    assert scores.isnan().all() and (argmax == -1).all()


def test_packing_looks_on_every_device(out_of_sight):
    """Its results have shapes that depend on the lengths: it waits in any case."""
    _, tensors = entries()["padded"]
    tensors.pop("q_weights")
    with pytest.raises(ValueError, match=r"doc_lengths\[1, 2\] is 6, must be 0 to 5"):
        pack_padded(**{**tensors, "doc_lengths": put(tensors["doc_lengths"], (1, 2), 6)})
    with pytest.raises(
        ValueError, match=r"query_lengths must all be > 0 with validate=True: query_lengths\[1\] is 0"
    ):
        maxsim_padded(**{**tensors, "query_lengths": torch.tensor([1, 0])}, validate=True)


def test_a_compiled_program_gives_nan():
    function, tensors = entries()["residual"]
    compiled = torch.compile(
        lambda codes: function(**{**tensors, "codes": codes}), fullgraph=True, backend="aot_eager"
    )
    assert compiled(put(tensors["codes"], (2, 0), -1)).isnan()[:, 2].all()


@pytest.mark.parametrize("device", [False, True])
def test_references(monkeypatch, device):
    """They look where they can, and index with nothing that they have not looked at."""
    _, tensors = entries()["residual"]
    q, codes, lengths = tensors["Q"], tensors["codes"], tensors["doc_lengths"]
    table = torch.randn(7, 3)
    rest = tensors["residuals"], lengths, tensors["centroids"], tensors["bucket_weights"], 2
    if device:
        monkeypatch.setattr(torch_arrays, "on_host", lambda x: False)
        assert reference.maxsim_residual_reference(q, put(codes, (0, 1), -1), *rest).isnan()[:, 0].all()
        assert reference.plaid_approx_score_reference(table, put(codes, (0, 1), -1), lengths).isfinite().all()
    else:
        with pytest.raises(ValueError, match=r"codes\[0, 1\] is -1, must be 0 to 6"):
            reference.maxsim_residual_reference(q, put(codes, (0, 1), -1), *rest)
        with pytest.raises(ValueError, match=r"codes\[0, 1\] is 7, must be 0 to 6"):
            reference.plaid_approx_score_reference(table, put(codes, (0, 1), 7), lengths)
    padding = put(codes, (1, 4), -1)  # no real token
    assert torch.equal(
        reference.plaid_approx_score_reference(table, padding, lengths),
        reference.plaid_approx_score_reference(table, codes, lengths),
    )


@pytest.mark.parametrize("device", [False, True])
def test_lengths_of_references(monkeypatch, device):
    _, tensors = entries()["padded"]
    _, residual = entries()["residual"]
    residual.pop("q_mask")
    wrong = put(residual["doc_lengths"], 2, 6)
    calls = {
        r"doc_lengths\[1, 2\] is 6": lambda: reference.maxsim_padded_reference(
            **{**tensors, "doc_lengths": put(tensors["doc_lengths"], (1, 2), 6)}
        )[1, 2],
        r"query_lengths\[0\] is -1": lambda: reference.maxsim_padded_reference(
            **{**tensors, "query_lengths": torch.tensor([-1, 2])}
        )[0],
        r"doc_lengths\[2\] is 6": lambda: reference.maxsim_residual_reference(
            **{**residual, "doc_lengths": wrong}, nbits=2
        )[:, 2],
        r"doc_lengths\[2\] is 6, must": lambda: reference.plaid_approx_score_reference(
            torch.randn(7, 3), residual["codes"], wrong
        )[2],
    }
    if device:
        monkeypatch.setattr(torch_arrays, "on_host", lambda x: False)
    for error, call in calls.items():
        if device:
            assert call().isnan().all()
        else:
            with pytest.raises(ValueError, match=error):
                call()


@pytest.mark.parametrize(
    "offsets, error",
    [([0, 3, 2, 9], "entry 2 is 2"), ([0, 4, 12], "entry 2 is 12"), ([-1, 9], "entry 0 is -1")],
)
def test_offsets_of_references(offsets, error):
    x = torch.randn(9, 8)
    with pytest.raises(ValueError, match=error):
        reference.maxsim_reference_varlen(x, x, torch.tensor([0, 9]), torch.tensor(offsets))


def test_masks_of_other_numbers_are_seen_under_the_check(monkeypatch):
    monkeypatch.setattr(torch_arrays, "on_host", lambda x: False)
    monkeypatch.setattr(_native, "maxsim", lambda *a: None)
    q, d, mask = torch.randn(2, 3, 8), torch.randn(4, 5, 8), torch.full((4, 5), 2)
    assert torch.equal(maxsim(q, d, None, mask), maxsim(q, d))
    monkeypatch.setenv("LIK_CHECK", "1")
    with pytest.raises(
        ValueError, match=r"d_mask of dtype int64 must hold only 0 and 1, d_mask\[0, 0\] is 2"
    ):
        maxsim(q, d, None, mask)


def test_a_torch_for_amd_calls_its_gpus_cuda(monkeypatch):
    """Their memory is none of CUDA's: torch operations serve, also where a CUDA backend is
    there.
    """

    class Device:
        type, index = "cuda", 0

    class Fake:
        dtype, device, is_cpu = torch.float32, Device(), False

    monkeypatch.setattr(torch_ops, "_said", {"cuda"})
    monkeypatch.setattr(_native, "has_device", lambda index: True)
    assert torch_ops.served(Fake())
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch_ops, "_said", set())
    with pytest.warns(RuntimeWarning, match=r"no CUDA backend for this device \(it is one of AMD's\)"):
        assert not torch_ops.served(Fake())


def test_why_a_device_is_not_served_is_said(monkeypatch):
    """A variable that the library refuses (LIK_CUDA_ARCH) ended in a warning about the
    build.
    """
    monkeypatch.setattr(_native, "device_error", lambda index: 'LIK_CUDA_ARCH is "abc"')
    monkeypatch.setattr(_native, "has_device", lambda index: False)
    monkeypatch.setattr(torch_ops, "_said", set())
    where = type("Device", (), {"type": "cuda", "index": 0})
    fake = type("Fake", (), {"dtype": torch.float32, "device": where, "is_cpu": False})
    with pytest.warns(RuntimeWarning, match=r"LIK_CUDA_ARCH is \"abc\""):
        assert not torch_ops.served(fake)
