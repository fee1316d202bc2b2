"""Tensors on an Apple GPU, by the mock of fake_torch.py: what computes, that it is right, and
what is said where it cannot be used.

The expected values are the library's own, on the CPU.
"""

from __future__ import annotations

import os
import subprocess
import warnings
from concurrent.futures import ThreadPoolExecutor

import fake_torch
import late_interaction_kernels as lik
import pytest
import torch
from late_interaction_kernels import mps
from late_interaction_kernels._engine import torch_metal, torch_mps
from late_interaction_kernels.mps import compile_dispatch, maxsim_inference_mps, maxsim_mps, metal


@pytest.fixture(autouse=True)
def _eager(monkeypatch):
    """torch.compile without a compiler: which way was taken is looked at, not inductor."""
    compiler = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda f, **options: compiler(f, backend="eager", dynamic=options["dynamic"])
    )
    torch._dynamo.reset()
    for name in ("LIK_FORCE_MPS_BACKEND", "LIK_DISABLE_COMPILE"):
        monkeypatch.delenv(name, raising=False)


def tensors(shape_q, shape_d, dtype=torch.float16, grad=False, seed=0):
    torch.manual_seed(seed)
    made = [torch.nn.functional.normalize(torch.randn(s), dim=-1).to(dtype) for s in (shape_q, shape_d)]
    return [x.requires_grad_() if grad else x for x in made]


LARGE = (2, 9, 16), (32, 192, 16)  # what Metal is used for
SMALL = (2, 9, 32), (3, 20, 32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("normalize", [False, True])
def test_inference_goes_to_metal(dtype, normalize):
    q, d = tensors(*LARGE, dtype)
    want = lik.maxsim(q, d, normalize=normalize)
    with fake_torch.a_mac() as made:
        got = maxsim_inference_mps(q, d, normalize=normalize)
        again = maxsim_mps(q, d, normalize=normalize)
    assert torch.allclose(got, want, atol=1e-4) and torch.equal(got, again)
    assert len(made) == 1 and any(name.startswith("lik_score") for name in made[0].calls)
    assert not compile_dispatch._compiled_cache


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape_d", [(32, 192, 32), (2, 5, 70, 32)])
def test_training_goes_to_metal(dtype, shape_d):
    q, d = tensors((2, 9, 32), shape_d, dtype, grad=True)
    masks = torch.rand(q.shape[:-1]) > 0.3, torch.rand(d.shape[:-1]) > 0.3
    scores = lik.maxsim(q, d, *masks, normalize=True)
    g = torch.randn_like(scores)
    want = torch.autograd.grad(scores, (q, d), g)
    with fake_torch.a_mac() as made:
        scores = maxsim_mps(q, d, *masks)
        got = torch.autograd.grad(scores, (q, d), g)
    assert {"lik_grad"} < set(made[0].calls)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == dtype and torch.allclose(
            a.float(), b.float(), atol=1e-2 if dtype != torch.float32 else 1e-5
        )


def test_everything_else_goes_there_too():
    """Packed tokens, pairs, the k best, views: through the same door."""
    q, d = tensors((3, 7, 24), (9, 11, 24), torch.float32)
    offsets = torch.tensor([0, 4, 4, 15, 21], dtype=torch.int32)
    packed = q.reshape(-1, 24), d.reshape(-1, 24), torch.tensor([0, 5, 21], dtype=torch.int32), offsets
    calls = [
        lambda: lik.maxsim_varlen(*packed),
        lambda: lik.maxsim_pairs(q, d[:3]),
        lambda: torch.stack([x.float() for x in lik.retrieve(q, d, 4)]),
        lambda: lik.maxsim(q[:, ::2], d.transpose(0, 1).contiguous().transpose(0, 1)),
        lambda: lik.maxsim(q, d, q_weights=torch.rand(3, 7, generator=torch.Generator().manual_seed(1))),
        lambda: lik.maxsim(q, d[:, :1], return_argmax=True)[1].float(),
        lambda: lik.maxsim(q, d[:0]),
        lambda: lik.maxsim(q, d[:, :0]),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = [call() for call in calls]
        with fake_torch.a_mac(), pytest.MonkeyPatch.context() as patch:
            patch.setenv("LIK_FORCE_MPS_BACKEND", "metal")
            got = [call() for call in calls]
            assert torch_metal._library.calls
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape and torch.allclose(a, b, atol=1e-5)


# ---- the choice ----


def test_small_problems_are_compiled():
    q, d = tensors(*SMALL)
    want = lik.maxsim(q, d, normalize=True)
    with fake_torch.a_mac() as made:
        for _ in range(2):
            assert torch.allclose(maxsim_mps(q, d), want, atol=1e-3)
        assert list(compile_dispatch._compiled_cache) == [(torch.float16, True, False, False)]
        maxsim_mps(q, d, torch.ones(2, 9, dtype=torch.bool))
        assert len(compile_dispatch._compiled_cache) == 2
    assert not any(library.calls for library in made if library) or made[0].calls == ["lik_score_f32"]


@pytest.mark.parametrize(
    ("name", "value", "shapes", "used"),
    [
        ("MIN_BATCH", "6", ((2, 9, 16), (3, 192, 16)), True),
        ("MIN_BATCH", "10000", LARGE, False),
        ("MIN_BATCH", "many", LARGE, True),
        ("MIN_LD", "20", ((2, 9, 16), (32, 20, 16)), True),
        ("MIN_LD", "193", LARGE, False),
        ("KD_MIN_BATCH", "11", ((2, 9, 32), (2, 5, 70, 32)), False),
        ("KD_MIN_LD", "71", ((2, 9, 32), (2, 5, 70, 32)), False),
        ("KD_MIN_LD", "70", ((2, 9, 32), (2, 5, 70, 32)), True),
    ],
)
def test_knobs(monkeypatch, name, value, shapes, used):
    monkeypatch.setenv(f"LIK_MPS_METAL_{name}", value)
    q, d = tensors(*shapes)
    with fake_torch.a_mac():
        maxsim_inference_mps(q, d)
        assert bool(compile_dispatch._compiled_cache) != used


@pytest.mark.parametrize("backend", ["metal", "compile", "reference", " Metal "])
@pytest.mark.parametrize("shapes", [SMALL, LARGE])
def test_forced(monkeypatch, backend, shapes):
    monkeypatch.setenv("LIK_FORCE_MPS_BACKEND", backend)
    q, d = tensors(*shapes)
    want = lik.maxsim(q, d, normalize=True)
    with fake_torch.a_mac(passed=False) as made:
        assert torch.allclose(maxsim_mps(q, d), want, atol=1e-3)
        assert bool(made) == (backend.strip().lower() == "metal")
        assert bool(compile_dispatch._compiled_cache) == (backend == "compile")


def test_forced_to_what_there_is_not(monkeypatch):
    q, d = tensors(*SMALL)
    with fake_torch.a_mac():
        monkeypatch.setenv("LIK_FORCE_MPS_BACKEND", "cuda")
        with pytest.warns(RuntimeWarning, match="LIK_FORCE_MPS_BACKEND is 'cuda', must be one of metal"):
            maxsim_mps(q, d)
        monkeypatch.setenv("LIK_FORCE_MPS_BACKEND", "metal")
        monkeypatch.setattr(torch_metal, "_kernels", None)
        with pytest.warns(RuntimeWarning, match="this build or this torch has no Metal kernels"):
            maxsim_mps(q, d)
        assert len(compile_dispatch._compiled_cache) == 1


def test_disable_compile(monkeypatch):
    monkeypatch.setenv("LIK_DISABLE_COMPILE", "1")
    q, d = tensors(*SMALL)
    with fake_torch.a_mac():
        assert torch.allclose(maxsim_mps(q, d), lik.maxsim(q, d, normalize=True), atol=1e-3)
        assert not compile_dispatch._compiled_cache


def test_what_does_not_compile_is_computed_without(monkeypatch):
    def refuse(*args, **options):
        raise RuntimeError("no inductor here")

    monkeypatch.setattr(torch, "compile", lambda f, **options: refuse)
    q, d = tensors(*SMALL)
    want = lik.maxsim(q, d, normalize=True)
    with fake_torch.a_mac():
        with pytest.warns(RuntimeWarning, match="torch.compile failed"):
            assert torch.allclose(maxsim_mps(q, d), want, atol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            maxsim_mps(q, d)


def test_too_many_products_are_not_held_at_once(monkeypatch):
    monkeypatch.setattr(torch_mps, "COMPILED_PRODUCTS", 1000)
    q, d = tensors(*SMALL)
    with fake_torch.a_mac():
        assert torch.allclose(maxsim_mps(q, d), lik.maxsim(q, d, normalize=True), atol=1e-3)
        assert not compile_dispatch._compiled_cache


# ---- may the kernels be trusted? ----


def test_without_a_verdict_metal_is_not_used():
    q, d = tensors(*LARGE)
    with fake_torch.a_mac(passed=False) as made:
        maxsim_mps(q, d)
        assert not made and len(compile_dispatch._compiled_cache) == 1


def test_the_verdict_is_that_of_the_command(monkeypatch, tmp_path):
    """As `lik selftest` writes it: for this version, device and system."""
    folder = tmp_path / "late-interaction-kernels"
    folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch_metal._native, "metal_device", lambda: ("metal:0", "Apple M9"))
    system, version = os.uname(), torch_metal._native.info()[0]
    key = f"lik {version}, metal:0, Apple M9, {system.sysname} {system.release} {system.machine}"
    key = f"{key}, {system.version}"
    file = folder / "selftest-metal-0.txt"
    for text, passed in (
        (f"{key}\npassed\nmore\n", True),
        (f"{key}\npassed\n", True),
        (f"{key}\nfailed\n", False),
        (f"{key}!\npassed\n", False),
        (f"{key}\n", False),
        ("", False),
        ("\udcff", False),
    ):
        file.write_bytes(text.encode(errors="surrogateescape"))
        assert torch_metal._verdict() is passed, text
    file.unlink()
    assert torch_metal._verdict() is False
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert torch_metal._cache().startswith(str(tmp_path / "home"))


@pytest.mark.skipif("LIK_BIN" not in os.environ, reason="LIK_BIN names no lik program")
def test_what_the_command_keeps_is_understood(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch_metal._native, "metal_device", lambda: ("metal:0", "Mock M1"))
    assert torch_metal._verdict() is False
    command = [os.environ["LIK_BIN"], "selftest", "--quick", "--device", "metal"]
    preload = {**os.environ, "LD_PRELOAD": os.environ["LIK_MOCK_METAL"]}
    subprocess.run(command, env=preload, check=True, stdout=subprocess.DEVNULL)
    assert torch_metal._verdict() is True


def test_kernels_that_are_wrong_are_not_used():
    class Wrong(fake_torch.Library):
        def __getattr__(self, name):
            run = super().__getattr__(name)

            def kernel(*given, **sizes):
                run(*given, **sizes)
                given[15].add_(1)  # the scores

            return kernel

    q, d = tensors(*LARGE)
    want = lik.maxsim(q, d, normalize=True)
    with fake_torch.a_mac(library=Wrong):
        with pytest.warns(RuntimeWarning, match="do not compute what torch does"):
            assert torch.allclose(maxsim_mps(q, d), want, atol=1e-3)


def test_what_torch_makes_by_default_does_not_matter():
    """Doubles, which an Apple GPU has not, half precision, inference."""
    q, d = tensors(*LARGE)
    want = lik.maxsim(q, d, normalize=True)
    torch.set_default_dtype(torch.float64)
    try:
        with fake_torch.a_mac() as made, torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            got = maxsim_mps(q, d)
            assert "lik_score_half" in made[0].calls
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.allclose(got, want, atol=1e-3)


def test_fast_mathematics_are_not_trusted(monkeypatch):
    q, d = tensors(*LARGE)
    monkeypatch.setenv("PYTORCH_MPS_FAST_MATH", "1")
    with fake_torch.a_mac() as made:
        with pytest.warns(RuntimeWarning, match="PYTORCH_MPS_FAST_MATH is set"):
            maxsim_mps(q, d)
        assert not made
        monkeypatch.setenv("PYTORCH_MPS_FAST_MATH", "0")
        maxsim_mps(q, d)
        assert made


def test_threads():
    """The first uses of a process, several at once."""
    q, d = tensors(*LARGE)
    want = lik.maxsim(q, d, normalize=True)
    with fake_torch.a_mac() as made, ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda _: maxsim_mps(q, d), range(8)))
    assert len(made) == 1 and all(torch.allclose(x, want, atol=1e-3) for x in got)


def test_compiled_programs():
    """Within torch.compile it is one operator, forward and backward."""
    q, d = tensors(*LARGE, torch.float32, grad=True)

    def loss(q, d):
        return maxsim_mps(q, d).sin().sum()

    want = torch.autograd.grad(lik.maxsim(q, d, normalize=True).sin().sum(), (q, d))
    with fake_torch.a_mac() as made:
        got = torch.autograd.grad(torch.compile(loss, dynamic=False)(q, d), (q, d))
    assert {"lik_score_f32", "lik_grad"} < set(made[0].calls)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(got, want, strict=True))


def test_a_source_that_does_not_compile():
    def refuse(source):
        raise SyntaxError("program_source:3: warning: unused\nprogram_source:7: error: unknown type name")

    q, d = tensors(*LARGE)
    want = lik.maxsim(q, d, normalize=True)
    with fake_torch.a_mac(library=refuse) as made:
        with pytest.warns(RuntimeWarning, match="do not compile here: program_source:7"):
            assert torch.allclose(maxsim_mps(q, d), want, atol=1e-3)
        assert not made
        with pytest.raises(RuntimeError, match="do not compile here"):
            metal.maxsim_inference_metal(q, d)


# ---- mps.metal ----


def test_metal_functions():
    q, d = tensors((3, 9, 40), (3, 4, 17, 40), torch.float32)
    scores, argmax = lik.maxsim(q, d, normalize=True, return_argmax=True)
    with fake_torch.a_mac():
        assert metal.is_available()
        got, winners, ctx = metal.maxsim_train_metal(q, d, normalize=True)
        assert torch.allclose(got, scores, atol=1e-5)
        assert torch.equal(winners, argmax.reshape(12, 9)) and winners.dtype == torch.int32
        assert ctx.kd_layout and ctx.D.shape == (12, 17, 40) and ctx.q_mask_i8 is None
        g = torch.randn(3, 4)
        one = metal.maxsim_backward_metal(g, q, d, winners, normalize=True)
        flat = metal.maxsim_backward_metal(g, ctx.Q, ctx.D, winners, kd_layout=True, normalize=True)
    qr, dr = q.clone().requires_grad_(), d.clone().requires_grad_()
    want = torch.autograd.grad(lik.maxsim(qr, dr, normalize=True), (qr, dr), g)
    assert (
        one[0].shape == q.shape
        and one[1].shape == d.shape
        and torch.equal(one[1].reshape(-1), flat[1].reshape(-1))
    )
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(one, want, strict=True))


def test_metal_functions_on_views():
    """Axes that were exchanged, parts of larger tensors, repeated queries."""
    q, d = tensors((9, 6, 40), (17, 5, 41), torch.float32)
    q, d = q.transpose(0, 1)[1:4], d.transpose(0, 1)[1:, :, 1:]
    same = q[:1].expand(3, -1, -1)
    g = torch.randn(3, 4)
    for queries in (q, same):
        scores, argmax = lik.maxsim(queries, d, return_argmax=True)
        qr, dr = queries.clone().requires_grad_(), d.clone().requires_grad_()
        want = torch.autograd.grad(lik.maxsim(qr, dr), (qr, dr), g)
        with fake_torch.a_mac():
            got, winners, _ = metal.maxsim_train_metal(queries, d)
            grads = metal.maxsim_backward_metal(g, queries, d, winners)
            negative = metal.maxsim_inference_metal(torch._neg_view(queries), d)
        assert torch.allclose(got, scores, atol=1e-5) and torch.equal(winners, argmax.reshape(12, 9))
        assert torch.allclose(negative, lik.maxsim(-queries, d), atol=1e-5)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(grads, want, strict=True))


@pytest.mark.parametrize(
    ("q", "d", "more", "words"),
    [
        ((9, 8), (2, 3, 4, 8), {}, "KD layout"),
        ((1, 2, 9, 8), (3, 4, 8), {}, r"Q\.dim\(\)"),
        ((2, 9, 8), (2, 3, 4, 8), {"d_mask": torch.ones(6, 4, dtype=torch.bool)}, "d_mask"),
        ((2, 9, 8), (2, 3, 4, 8), {"q_mask": torch.ones(9, dtype=torch.bool)}, "q_mask"),
        ((2, 9, 8), (3, 4, 16), {}, "dim"),
    ],
)
def test_metal_functions_refuse(q, d, more, words):
    q, d = tensors(q, d)
    with fake_torch.a_mac(), pytest.raises(ValueError, match=words):
        metal.maxsim_inference_metal(q, d, **more)


def test_metal_functions_without_metal():
    q, d = tensors(*SMALL)
    assert not metal.is_available()
    for call in (
        lambda: metal.maxsim_inference_metal(q, d),
        lambda: metal.maxsim_train_metal(q, d),
        lambda: metal.maxsim_backward_metal(torch.ones(2, 3), q, d, torch.zeros(6, 9, dtype=torch.int32)),
    ):
        with pytest.raises(RuntimeError, match="requires Metal kernels"):
            call()
    assert mps.metal is metal
