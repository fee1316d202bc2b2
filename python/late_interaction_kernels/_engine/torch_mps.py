"""What computes an operation on an Apple GPU: the Metal kernels, a compiled reference, or plain
torch operations in bounded memory.

``LIK_FORCE_MPS_BACKEND`` names one of ``metal``, ``compile`` and ``reference``. Else the Metal
kernels are used where ``lik selftest --device metal`` has passed on this machine and the
problem is large enough; the bounds are guesses, nobody has measured them. Other padded problems
go to the compiled reference, unless ``LIK_DISABLE_COMPILE=1``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import torch

from . import environment, torch_metal
from .problem import ALL, CANDIDATES, NORMALIZE, Problem, score_shape

BACKENDS = ("metal", "compile", "reference")

# Metal pays from so many pairs of documents of so many tokens on: the bounds of the existing
# package's kernels, on its own hardware. Untested for these.
MIN_BATCH, MIN_LD = 64, 192
KD_MIN_BATCH, KD_MIN_LD = 8, 64  # of candidates

# Products that the compiled reference may hold at once; what has more is taken in blocks.
COMPILED_PRODUCTS = 1 << 28

compiled_cache: dict[tuple[Any, ...], Callable[..., Any]] = {}
_lock = threading.Lock()


def _forced() -> str | None:
    value = os.environ.get("LIK_FORCE_MPS_BACKEND", "").strip().lower()
    if value in BACKENDS:
        return value
    if value:
        torch_metal.say(
            "forced", f"LIK_FORCE_MPS_BACKEND is {value[:40]!r}, must be one of {', '.join(BACKENDS)}"
        )
    return None


def _bound(name: str, default: int) -> int:
    try:
        return int(os.environ.get(f"LIK_MPS_METAL_{name}", default))
    except ValueError:
        return default


def _pays(p: Problem) -> bool:
    """Is the problem large enough for Metal? What no compiled reference takes always is."""
    if not _is_plain(p):
        return True
    rows, columns = score_shape(p)
    length = p.d.data.shape[-2]
    if p.pairing == CANDIDATES:
        least, tokens = _bound("KD_MIN_BATCH", KD_MIN_BATCH), _bound("KD_MIN_LD", KD_MIN_LD)
    else:
        least, tokens = _bound("MIN_BATCH", MIN_BATCH), _bound("MIN_LD", MIN_LD)
    return bool(rows * columns >= least and length >= tokens)


def metal(p: Problem, always: bool = False) -> bool:
    """Do the Metal kernels take this? ``always``: of whatever size."""
    forced = _forced()
    if forced not in (None, "metal"):
        return False
    if forced == "metal" and not torch_metal.is_available():
        torch_metal.say(
            "absent", "LIK_FORCE_MPS_BACKEND is 'metal', but this build or this torch has no Metal kernels"
        )
        return False
    device = p.q.data.device
    return torch_metal.ready(device, forced == "metal") and (forced == "metal" or always or _pays(p))


# ---- the compiled reference ----


def _is_plain(p: Problem) -> bool:
    """Padded queries by padded documents, with nothing but masks."""
    beside = p.q.weights, p.q.scale, p.d.scale, p.q.offsets, p.d.offsets, p.d.codes
    floats = p.q.data.is_floating_point() and p.d.data is not None and p.d.data.is_floating_point()
    same = p.normalize in (0, NORMALIZE)
    return floats and same and p.pairing in (ALL, CANDIDATES) and all(x is None for x in beside)


def _products(p: Problem) -> int:
    rows, columns = score_shape(p)
    return int(rows * columns * p.q.data.shape[-2] * p.d.data.shape[-2])


def _reference(Q: Any, D: Any, q_mask: Any, d_mask: Any, normalize: bool) -> Any:
    """[Nq, Lq, d] x [Nd, Ld, d], or [Nq, K, Ld, d], all products at once."""
    q, d = Q.float(), D.float()
    if normalize:
        q = torch.nn.functional.normalize(q, dim=-1, eps=1e-12)
        d = torch.nn.functional.normalize(d, dim=-1, eps=1e-12)
    products = torch.einsum("qsd,qktd->qkst" if d.dim() == 4 else "qsd,ktd->qkst", q, d)
    if d_mask is None:
        best = products.amax(-1)
    else:
        kept = d_mask[:, :, None] if d.dim() == 4 else d_mask[None, :, None]
        best = products.masked_fill(~kept, -torch.inf).amax(-1)
        best = torch.where(kept.any(-1), best, 0)
    if q_mask is not None:
        best = torch.where(q_mask[:, None], best, 0)
    return best.sum(-1)


def _compiled(p: Problem) -> Callable[..., Any]:
    """By dtype, normalization and which masks there are. Shapes are static: torch compiles each
    anew, a few times, and then runs the reference as it is."""
    key = p.q.data.dtype, bool(p.normalize), p.q.mask is not None, p.d.mask is not None
    with _lock:
        if key not in compiled_cache:
            compiled_cache[key] = torch.compile(_reference, dynamic=False)
        return compiled_cache[key]


def compiled_score(p: Problem) -> Any:
    """The scores, or None where no compiled reference takes this."""
    if _forced() == "reference" or environment.flag("LIK_DISABLE_COMPILE"):
        return None
    if not _is_plain(p) or not 0 < _products(p) <= COMPILED_PRODUCTS or p.q.data.dtype == torch.float64:
        return None
    call = p.q.data, p.d.data, p.q.mask, p.d.mask, bool(p.normalize)
    try:
        with torch.no_grad():
            return _compiled(p)(*call)
    except Exception as failure:  # whatever the compiler of this torch makes of it
        torch_metal.say("compiler", f"torch.compile failed, scores are computed without it: {failure}"[:600])
        return None


# ---- the verbs: None or False where torch_plain is to do it ----


def score(p: Problem, want_argmax: bool) -> tuple[Any, Any] | None:
    if metal(p, always=want_argmax):  # which no compiled reference gives
        try:
            return torch_metal.score(p, want_argmax)
        except NotImplementedError:  # the kernels do not do this one
            pass
    scores = None if want_argmax else compiled_score(p)
    return None if scores is None else (scores, None)


def topk(p: Problem, k: int, id_base: int, smallest: bool) -> tuple[Any, Any] | None:
    if metal(p, always=True):
        try:
            return torch_metal.topk(p, k, id_base, smallest)
        except NotImplementedError:
            pass
    return None


def grad(p: Problem, grad_scores: Any, argmax: Any, into: tuple[Any, Any, Any], accumulate: bool) -> bool:
    if metal(p, always=True):
        try:
            torch_metal.grad(p, grad_scores, argmax, into, accumulate)
            return True
        except NotImplementedError:
            pass
    return False
