"""8-bit floats: quantization, and MaxSim on the stored bytes.

Scores are those of the dequantized values: no rounding happens besides the quantization itself.
"""

from __future__ import annotations

import numbers
from typing import Any

from ._engine.checks import (
    FLOATS8,
    Framework,
    assembled,
    check_axes,
    check_device,
    check_float,
    check_rank,
    check_shape,
    embeddings,
    framework,
    quantized,
    shape_text,
)
from ._engine.kinds import Array
from ._engine.verbs import score


def _fp8_name(dtype: Any) -> str:
    name = "float8_e4m3fn" if dtype is None else str(getattr(dtype, "__name__", dtype)).removeprefix("torch.")
    if name not in FLOATS8:
        raise ValueError(f"dtype must be float8_e4m3fn or float8_e5m2, got {dtype}")
    return name


def quantize_fp8_per_tensor(X: Array, dtype: Any = None) -> tuple[Array, Array]:
    """(X_fp8, 0-d float32 scale): scale = max(largest |x|, 1e-6) / the dtype's largest
    value; 1 for an empty X.

    X is float32, float16, bfloat16 or float64 of any shape; dtype is float8_e4m3fn (None,
    largest 448) or float8_e5m2 (57344), as torch's or ml_dtypes' dtype or by name. NumPy arrays
    need ml_dtypes.

    Raises:
        ValueError: another dtype.
        TypeError: an X that is not floating point.

    Example:
        >>> import torch
        >>> from late_interaction_kernels.fp8 import quantize_fp8_per_tensor
        >>> X_fp8, scale = quantize_fp8_per_tensor(torch.tensor([[1.0, -2.0]]))
        >>> X_fp8.float().tolist(), X_fp8.dtype
        ([[224.0, -448.0]], torch.float8_e4m3fn)
    """
    fw = framework(X=X)
    return quantized(fw, embeddings(fw, "X", X), _fp8_name(dtype), one=True)


def quantize_fp8_per_token(X: Array, dtype: Any = None, *, normalize: bool = False) -> tuple[Array, Array]:
    """(X_fp8, float32 scales of shape ``X.shape[:-1]``): as :func:`quantize_fp8_per_tensor`,
    one scale a token. With ``normalize`` the token's length is folded into it: the pair stands
    for unit vectors.

    Example:
        >>> import torch
        >>> from late_interaction_kernels.fp8 import quantize_fp8_per_token
        >>> quantize_fp8_per_token(torch.tensor([[1.0, -2.0], [0.5, 0.0]]))[0].float().tolist()
        [[224.0, -448.0], [448.0, 0.0]]
    """
    fw = framework(X=X)
    check_axes("X", X)
    return quantized(fw, embeddings(fw, "X", X), _fp8_name(dtype), normalize)


def dequantize_fp8_per_tensor(X_fp8: Any, scale: Any) -> Any:
    """float32 ``X_fp8 * scale``; the scale has one element.

    Raises:
        ValueError: more scales than one.
        TypeError: an X_fp8 that is not fp8.

    Example:
        >>> import torch
        >>> from late_interaction_kernels import fp8
        >>> pair = fp8.quantize_fp8_per_tensor(torch.tensor([[1.0, -2.0]]))
        >>> fp8.dequantize_fp8_per_tensor(*pair).round(decimals=3)
        tensor([[ 1., -2.]])
    """
    fw = framework(X_fp8=X_fp8)
    _check_fp8(fw, "X_fp8", X_fp8)
    scale = _scale(fw, "scale", scale, X_fp8, "X_fp8")
    check_shape("scale", scale, (), "one element")
    return fw.cast(X_fp8, "float32") * scale


def dequantize_fp8_per_token(X_fp8: Any, scale: Any) -> Any:
    """float32 ``X_fp8 * scale[..., None]``; scales of shape ``X_fp8.shape[:-1]``.

    Raises:
        ValueError: scales of another shape.
        TypeError: an X_fp8 that is not fp8.

    Example:
        >>> import torch
        >>> from late_interaction_kernels import fp8
        >>> pair = fp8.quantize_fp8_per_token(torch.tensor([[1.0], [-2.0]]))
        >>> fp8.dequantize_fp8_per_token(*pair).round(decimals=3)
        tensor([[ 1.],
                [-2.]])
    """
    fw = framework(X_fp8=X_fp8, scale=scale)
    _check_fp8(fw, "X_fp8", X_fp8)
    check_shape("scale", scale, tuple(X_fp8.shape[:-1]), "one a token")
    return fw.cast(X_fp8, "float32") * _scale(fw, "scale", scale, X_fp8, "X_fp8")[..., None]


def _check_fp8(fw: Framework, name: str, x: Any) -> None:
    if fw.dtype_name(x) not in FLOATS8:
        raise TypeError(f"{name} has dtype {fw.dtype_name(x)}, must be float8_e4m3fn or float8_e5m2")


def _scale(fw: Framework, name: str, scale: Any, x: Any, x_name: str) -> Any:
    """Per token if it has the tokens' shape, else one element for the whole tensor; a number is
    taken too.
    """
    if isinstance(scale, numbers.Real) and not isinstance(scale, bool):
        return fw.scalar(float(scale), x)
    framework(**{x_name: x, name: scale})
    check_device(fw, name, scale, x, x_name)
    check_float(fw, name, scale)
    scale = fw.cast(scale, "float32")
    if tuple(scale.shape) == tuple(x.shape[:-1]):
        return scale
    elements = 1
    for n in scale.shape:
        elements *= int(n)
    if elements != 1:
        raise ValueError(
            f"{name} must hold one element or have shape {shape_text(x.shape[:-1])} (one a token), "
            f"got {shape_text(scale.shape)}"
        )
    return scale.reshape(())


def maxsim_inference_fp8(
    Q: Any,
    D: Any,
    *,
    scale_Q: Any,
    scale_D: Any,
    q_mask: Any = None,
    d_mask: Any = None,
    q_weights: Any = None,
    return_argmax: bool = False,
) -> Any:
    """MaxSim of fp8 tokens: Q ``[Nq, Lq, d]`` or ``[Lq, d]``, D ``[Nd, Ld, d]`` or ``[Ld, d]``
    -> float32 scores.

    Args:
        Q, D: float8_e4m3fn or float8_e5m2 (torch's or ml_dtypes').
        scale_Q, scale_D: one element, or one a token (shape of Q or D without d).
        q_mask, d_mask, q_weights, return_argmax: as in :func:`maxsim`.

    Never differentiable.

    Raises:
        ValueError: shapes, scales of neither kind, devices.
        TypeError: tokens that are not fp8.

    Example:
        >>> import torch
        >>> from late_interaction_kernels import fp8
        >>> Q8, s = fp8.quantize_fp8_per_token(torch.eye(4)[None])
        >>> fp8.maxsim_inference_fp8(Q8, Q8, scale_Q=s, scale_D=s).round(decimals=2)
        tensor([[4.]])
    """
    fw = framework(Q=Q, D=D, q_mask=q_mask, d_mask=d_mask, q_weights=q_weights)
    for name, x in (("Q", Q), ("D", D)):
        check_rank(name, x, (2, 3), "[N, L, d] or [L, d]")
        _check_fp8(fw, name, x)

    def operands() -> tuple[Any, Any, Any, Any]:
        return Q, _scale(fw, "scale_Q", scale_Q, Q, "Q"), D, _scale(fw, "scale_D", scale_D, D, "D")

    problem, shape = assembled(fw, Q, D, q_mask, d_mask, q_weights, operands)
    scores, argmax = score(problem, return_argmax)
    if not return_argmax:
        return scores.reshape(shape)
    return scores.reshape(shape), fw.cast(argmax, "int32").reshape((*shape, argmax.shape[-1]))


__all__ = [
    "dequantize_fp8_per_tensor",
    "dequantize_fp8_per_token",
    "maxsim_inference_fp8",
    "quantize_fp8_per_tensor",
    "quantize_fp8_per_token",
]
