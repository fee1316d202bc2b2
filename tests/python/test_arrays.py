"""What a NumPy array may be besides plain: masked, a matrix, read-only, of another byte order;
in every function.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from entries import called, entries, parts
from late_interaction_kernels import maxsim, retrieve

WITHOUT_NUMPY = ("backward", "mps")
FP8 = {torch.float8_e4m3fn: ml_dtypes.float8_e4m3fn, torch.float8_e5m2: ml_dtypes.float8_e5m2}


def as_array(x):
    return x.view(torch.uint8).numpy().view(FP8[x.dtype]) if x.dtype in FP8 else x.numpy()


def of_numpy():
    return {
        name: (function, {k: as_array(x) for k, x in tensors.items()})
        for name, (function, tensors) in entries().items()
        if name not in WITHOUT_NUMPY
    }


def every_argument():
    return [(name, argument) for name, (_, arrays) in of_numpy().items() for argument in arrays]


def same(got, want):
    for a, b in zip(parts(got), parts(want), strict=True):
        if b is not None:
            assert np.array_equal(np.asarray(a, np.float64), np.asarray(b, np.float64), equal_nan=True)


class Own(np.ndarray):
    pass


@pytest.mark.parametrize("name, argument", every_argument())
def test_subclasses_are_refused_by_name_at_every_call(name, argument):
    function, arrays = of_numpy()[name]
    x = arrays[argument]
    masked, own = np.ma.masked_array(x, mask=np.zeros(x.shape, bool)), x.view(Own)
    matrix = [np.asmatrix(x)] if x.ndim == 2 and x.dtype not in FP8.values() else []
    for _ in range(2):
        with pytest.raises(
            TypeError,
            match=rf"{called(name, argument)} is a MaskedArray.*ignored: pass .*\.data",
        ):
            function(**{**arrays, argument: masked})
        for value in (own, *matrix):
            with pytest.raises(
                TypeError, match=rf"{called(name, argument)} is a (Own|matrix), must be a plain numpy.ndarray"
            ):
                function(**{**arrays, argument: value})


def test_the_mask_to_pass_is_named():
    q, d = np.ones((2, 3, 8), "f4"), np.ma.masked_array(np.ones((4, 5, 8), "f4"))
    with pytest.raises(
        TypeError, match=r"D is a MaskedArray.*pass D.data, and the tokens that count as d_mask"
    ):
        maxsim(q, d)
    with pytest.raises(TypeError, match=r"Q is a MaskedArray.*as q_mask"):
        retrieve(np.ma.masked_array(q), d.data, 2)


def test_a_matrix_has_one_answer(run):
    """It was an error at the first call of a process and scores at the second."""
    done = run("""
import numpy as np
from late_interaction_kernels import maxsim
q, d = np.matrix(np.eye(2, 8)), np.matrix(np.eye(3, 8))
for _ in range(2):
    try:
        maxsim(q, d)
    except TypeError as error:
        print(error)
""")
    want = "Q is a matrix, must be a plain numpy.ndarray: pass numpy.asarray(Q)\n"
    assert done.stdout == want * 2, done.stderr


def test_mapped_files_are_plain(tmp_path):
    d = np.random.rand(4, 5, 8).astype("f4")
    d.tofile(tmp_path / "d")
    mapped = np.memmap(tmp_path / "d", "f4", "r", shape=d.shape)
    q = np.random.rand(2, 3, 8).astype("f4")
    same(maxsim(q, mapped), maxsim(q, d))
    same(retrieve(q, mapped[1:], 2, chunk=1), retrieve(q, d[1:], 2))


def layouts(x):
    """The same values, laid out in other ways."""
    reversed_ = np.ascontiguousarray(x[..., ::-1])[..., ::-1] if x.ndim else x
    spread = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    spread[..., ::2] = x
    upside_down = np.ascontiguousarray(x[::-1])[::-1]
    readonly = x.copy()
    readonly.flags.writeable = False
    raw = np.zeros(x.nbytes + 1, np.uint8)
    raw[1:] = np.frombuffer(x.tobytes(), np.uint8)
    yield from (reversed_, spread[..., ::2], upside_down, np.asfortranarray(x), readonly)
    yield raw[1:].view(x.dtype).reshape(x.shape)  # not aligned
    if x.dtype.kind in "iuf" and x.dtype.itemsize > 1 and x.dtype not in FP8.values():
        yield x.astype(x.dtype.newbyteorder(">"))
    record = np.zeros(x.shape, np.dtype([("pad", "u1"), ("x", x.dtype)]))
    record["x"] = x
    yield record["x"]  # strides that are no multiple of the elements


@pytest.mark.parametrize("name, argument", every_argument())
def test_every_layout(name, argument):
    function, arrays = of_numpy()[name]
    want = function(**arrays)
    for x in layouts(arrays[argument]):
        for _ in range(2):
            same(function(**{**arrays, argument: x}), want)


@pytest.mark.parametrize("name, argument", every_argument())
def test_what_is_no_array_of_numbers(name, argument):
    function, arrays = of_numpy()[name]
    x = arrays[argument]
    record = np.zeros(x.shape, np.dtype([("x", "f4")]))
    bad = [
        np.zeros(x.shape, "V0"),
        np.zeros(x.shape, np.dtype([])),
        x.tolist(),
        x.astype(object),
        record,
        np.zeros(x.shape, "m8[s]"),
        np.full(x.shape, "1"),
        np.array(None),
        "no",
        3j,
    ]
    bad += (
        [np.zeros((), x.dtype)]
        if not (argument.startswith("scale") or name.endswith(("whole", "dequantize fp8")))
        else []
    )
    for value in bad:
        for _ in range(2):
            with pytest.raises((TypeError, ValueError), match=called(name, argument)):
                function(**{**arrays, argument: value})
