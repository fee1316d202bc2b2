"""What a tensor may be besides plain: lazily negative, traced, wrapped by torch.func, fake, a
subclass.
"""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from entries import called, entries, every_argument, parts
from late_interaction_kernels import _native
from late_interaction_kernels._engine import torch_arrays

TRACED = list(entries())


def close(got, want):
    for a, b in zip(parts(got), parts(want), strict=True):
        if isinstance(b, torch.Tensor):
            torch.testing.assert_close(a.float(), b.float(), rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("name, argument", every_argument())
def test_lazily_negative(name, argument):
    function, tensors = entries()[name]
    x = tensors[argument]
    if x.dtype.itemsize == 1:
        pytest.skip("no sign to put off")
    lazy = torch._neg_view(-x)
    assert lazy.is_neg() and torch.equal(lazy, x)
    want = function(**tensors)
    close(function(**{**tensors, argument: lazy}), want)
    close(function(**{**tensors, argument: lazy}), want)  # the second call may go another way


def test_lazily_negative_where_torch_has_no_exchange_api(monkeypatch):
    """Torch before 2.10 lends addresses: what was made plain must live until it has been
    read.
    """
    monkeypatch.setattr(torch_arrays, "EXCHANGE", False)
    for short_way in ("maxsim", "best"):
        monkeypatch.setattr(_native, short_way, lambda *a: None)
    for name, argument in every_argument():
        function, tensors = entries()[name]
        if tensors[argument].dtype.itemsize > 1:
            want = function(**tensors)
            close(function(**{**tensors, argument: torch._neg_view(-tensors[argument])}), want)


@pytest.mark.parametrize("name", ["maxsim", "pairs", "varlen", "head", "residual"])
def test_gradients_of_and_by_lazily_negative_tensors(name):
    function, tensors = entries()[name]
    leaves = [
        k for k, x in tensors.items() if x.is_floating_point() and k not in ("centroids", "bucket_weights")
    ]

    def gradients(change):
        inputs = {k: change(x).detach().requires_grad_() if k in leaves else x for k, x in tensors.items()}
        scores = function(**inputs)
        return torch.autograd.grad(scores, [inputs[k] for k in leaves], change(torch.ones_like(scores) * 2))

    for a, b in zip(gradients(lambda x: torch._neg_view(-x)), gradients(lambda x: x), strict=True):
        assert torch.equal(a, b)


def test_the_imaginary_part_of_a_conjugate():
    function, tensors = entries()["maxsim"]
    weights = torch.fft.rfft(torch.rand(2, 9)).conj().imag[:, 1:4]
    assert weights.is_neg()
    close(
        function(**{**tensors, "q_weights": weights}), function(**{**tensors, "q_weights": weights.clone()})
    )
    q, d, scores = tensors["Q"].clone().requires_grad_(), tensors["D"], function(tensors["Q"], tensors["D"])
    g = torch.fft.rfft(torch.rand(2, 9)).conj().imag[:, :4]
    (got,) = torch.autograd.grad(function(q, d), q, g)
    assert torch.equal(got, torch.autograd.grad(function(q, d), q, g.clone())[0]) and scores.shape == g.shape


def test_zeros_without_memory():
    function, tensors = entries()["maxsim"]
    for argument in ("Q", "D", "q_weights"):
        none = torch._efficientzerotensor(tensors[argument].shape)
        close(
            function(**{**tensors, argument: none}),
            function(**{**tensors, argument: torch.zeros(none.shape)}),
        )


@pytest.mark.parametrize("name", TRACED)
def test_jit_trace(name):
    function, tensors = entries()[name]
    torch.manual_seed(1)
    others = entries()[name][1]
    order = list(tensors)

    def call(*values):
        return tuple(x for x in parts(function(**dict(zip(order, values)))) if x is not None)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(call, tuple(tensors.values()), check_trace=False)
    for inputs in (tensors, others):
        want = call(*inputs.values())
        got = parts(traced(*inputs.values()))
        assert [x.shape for x in got] == [x.shape for x in want]
        close(got, want)


@pytest.mark.parametrize(
    "name", ["maxsim alone", "one query", "retrieve alone", "residual", "approx", "padded"]
)
def test_a_trace_serves_other_numbers_of_documents(name):
    function, tensors = entries()[name]
    order = list(tensors)
    many = {
        k: torch.cat([x, x, x], 1 if name == "padded" else 0)
        for k, x in tensors.items()
        if k in ("D", "documents", "codes", "residuals") or (k == "doc_lengths")
    }

    def call(*values):
        return function(**dict(zip(order, values)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(call, tuple(tensors.values()), check_trace=False)
    tensors = {**tensors, **many}
    close(traced(*tensors.values()), function(**tensors))


@pytest.mark.parametrize("name", TRACED)
def test_export(name):
    function, tensors = entries()[name]

    class Module(torch.nn.Module):
        def forward(self, tensors):
            return tuple(x for x in parts(function(**tensors)) if x is not None)

    program = torch.export.export(Module(), (tensors,), strict=False)
    torch.manual_seed(4)
    others = entries()[name][1]
    close(program.module()(others), Module()(others))


def test_jit_trace_as_the_first_call(run):
    done = run("""
import torch
from late_interaction_kernels import maxsim
q, d = torch.randn(2, 3, 8), torch.randn(4, 5, 8)
traced = torch.jit.trace(lambda q, d: maxsim(q, d), (q, d), check_trace=False)
q, d = torch.randn(2, 3, 8), torch.randn(4, 5, 8)
assert torch.equal(traced(q, d), maxsim(q, d))
""")
    assert done.returncode == 0, done.stderr


def test_jit_trace_of_a_gradient():
    function, tensors = entries()["maxsim"]
    q, d = tensors["Q"].requires_grad_(), tensors["D"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(function, (q, d), check_trace=False)
    other = torch.randn(2, 3, 8, requires_grad=True)
    (got,), (want,) = (torch.autograd.grad(f(other, d).sum(), other) for f in (traced, function))
    assert torch.equal(got, want)


@pytest.mark.parametrize("name", TRACED)
def test_make_fx(name):
    from torch.fx.experimental.proxy_tensor import make_fx

    function, tensors = entries()[name]
    order = list(tensors)

    def call(*values):
        return tuple(x for x in parts(function(**dict(zip(order, values)))) if x is not None)

    graph = make_fx(call)(*tensors.values())
    torch.manual_seed(2)
    others = entries()[name][1]
    close(graph(*others.values()), call(*others.values()))


@pytest.mark.parametrize("name, argument", every_argument())
def test_vmap(name, argument):
    """Over one argument at a time: the same as one call after another, or an error that names
    an argument.
    """
    function, tensors = entries()[name]
    torch.manual_seed(3)
    other = entries()[name][1][argument]
    both = torch.stack([tensors[argument], other])

    def call(x):
        return tuple(y for y in parts(function(**{**tensors, argument: x})) if y is not None)

    got = torch.func.vmap(call)(both)
    for i, x in enumerate((tensors[argument], other)):
        close(tuple(y[i] for y in got), call(x))


@pytest.mark.parametrize("name", ["maxsim", "candidates", "pairs", "head", "residual"])
def test_vmap_of_integer_masks(name):
    function, tensors = entries()[name]
    for argument in tensors.keys() & {"q_mask", "d_mask"}:
        masks = torch.stack([tensors[argument], ~tensors[argument]])
        got = torch.func.vmap(lambda mask, name=argument: function(**{**tensors, name: mask}))(masks.long())
        for i, mask in enumerate(masks):
            close(got[i], function(**{**tensors, argument: mask}))


@pytest.mark.parametrize("transform", ["vmap", "grad"])
def test_a_transform_as_the_first_call(run, transform):
    code = {
        "vmap": "torch.func.vmap(lambda q: maxsim(q, d))(torch.stack([q, q]))",
        "grad": "torch.func.grad(lambda q: maxsim(q, d).sum())(q)",
    }[transform]
    done = run(
        "import warnings, torch\nfrom late_interaction_kernels import autograd, maxsim\n"
        "warnings.simplefilter('error')\n"
        f"q, d = torch.randn(2, 3, 8), torch.randn(4, 5, 8)\n{code}\nassert not autograd._NORM_CHECKED\n",
        LIK_SUPPRESS_NORM_WARN="0",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["varlen", "list", "residual varlen"])
def test_a_bound_that_vmap_needs_is_named(name):
    function, tensors = entries()[name]
    with pytest.raises(
        ValueError, match="max_seqlen_d is needed: cu_seqlens_d is compiled, traced, fake or wrapped"
    ):
        offsets = torch.stack([tensors["cu_seqlens_d"]] * 2)
        torch.func.vmap(
            lambda x: function.func(
                **{**function.keywords, **tensors, "cu_seqlens_d": x, "max_seqlen_d": None}
            )
        )(offsets)


def test_packing_is_refused_where_lengths_have_no_values():
    from late_interaction_kernels.padded import maxsim_padded, pack_padded

    q, d, lengths = torch.randn(2, 3, 8), torch.randn(2, 4, 5, 8), torch.tensor([2, 3])
    full = torch.full((2, 4), 5)

    def validated(*arguments):
        return maxsim_padded(*arguments, validate=True)

    for function in (pack_padded, validated):
        with pytest.raises(ValueError, match=r"query_lengths is traced, fake or wrapped by torch.func"):
            torch.func.vmap(function, (None, None, 0, None))(q, d, torch.stack([lengths, lengths]), full)
        with pytest.raises(ValueError, match=r"query_lengths is traced, fake or wrapped by torch.func"):
            torch.jit.trace(function, (q, d, lengths, full), check_trace=False)


@pytest.mark.parametrize("name", TRACED)
def test_fake_and_meta(name):
    from torch._subclasses.fake_tensor import FakeTensorMode

    function, tensors = entries()[name]
    want = [x for x in parts(function(**tensors)) if x is not None]
    with FakeTensorMode() as mode:
        fake = [
            x
            for x in parts(function(**{k: mode.from_tensor(x) for k, x in tensors.items()}))
            if x is not None
        ]
    meta = [x for x in parts(function(**{k: x.to("meta") for k, x in tensors.items()})) if x is not None]
    for got in (fake, meta):
        assert [(x.shape, x.dtype) for x in got] == [(x.shape, x.dtype) for x in want]


def test_a_mode_that_only_watches():
    """Counting operations, as selective checkpointing, takes no values away."""
    from late_interaction_kernels import maxsim_varlen
    from late_interaction_kernels.padded import pack_padded
    from torch.utils.flop_counter import FlopCounterMode

    _, tensors = entries()["varlen"]
    want = maxsim_varlen(**tensors)
    q, d, lengths = torch.randn(2, 3, 8), torch.randn(2, 4, 5, 8), torch.tensor([2, 3])
    with FlopCounterMode(display=False):
        assert torch.equal(maxsim_varlen(**tensors), want)
        assert pack_padded(q, d, lengths, torch.full((2, 4), 5), validate=True).max_seqlen_q == 3


class Plain(torch.Tensor):
    pass


@pytest.mark.parametrize("name, argument", every_argument())
def test_a_subclass(name, argument):
    function, tensors = entries()[name]
    want = function(**tensors)
    for _ in range(2):
        close(function(**{**tensors, argument: tensors[argument].as_subclass(Plain)}), want)


@pytest.mark.parametrize("name, argument", every_argument())
def test_what_is_no_dense_tensor(name, argument):
    """Sparse, nested, quantized, a list, none: a TypeError or ValueError at the first call and
    at the second.
    """
    function, tensors = entries()[name]
    x = tensors[argument]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bad = [x.tolist() if x.dtype.itemsize > 1 else [1], "no"]
        if x.dtype.itemsize > 1 or x.dtype == torch.bool:
            bad.append(x.to_sparse())
        if x.dtype == torch.float32:
            bad += [
                torch.nested.nested_tensor([x, x]),
                torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
                x.cfloat(),
            ]
        if x.dtype == torch.bool or argument.startswith(("cu_", "pair", "doc_l", "query_l", "codes")):
            bad += [x.float(), torch.quantize_per_tensor(x.float(), 0.1, 0, torch.quint8)]
    for value in bad:
        if argument.startswith("scale") and isinstance(value, torch.Tensor) and value.dtype == torch.float32:
            continue
        for _ in range(2):
            with pytest.raises((TypeError, ValueError)) as error:
                function(**{**tensors, argument: value})
            assert re.search(called(name, argument), str(error.value)), str(error.value)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.uint32, torch.uint64]
)
@pytest.mark.parametrize(
    "name, argument",
    [
        pair
        for pair in every_argument()
        if pair[1] in ("codes", "codes_flat", "doc_lengths", "query_lengths")
        or pair[1].startswith(("cu_", "pair_"))
    ],
)
def test_every_integer_dtype(name, argument, dtype):
    function, tensors = entries()[name]
    want = function(**tensors)
    for _ in range(2):
        close(function(**{**tensors, argument: tensors[argument].to(dtype)}), want)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.int64, torch.uint16])
def test_every_integer_dtype_of_masks(dtype):
    function, tensors = entries()["maxsim"]
    for argument in ("q_mask", "d_mask"):
        close(function(**{**tensors, argument: tensors[argument].to(dtype)}), function(**tensors))
