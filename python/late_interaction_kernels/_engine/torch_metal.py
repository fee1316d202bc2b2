"""Tensors on Apple GPUs: the library's Metal kernels, on torch's own queue.

The library plans an operation, which becomes a list of dispatches; ``torch.mps.compile_shader``
compiles the kernels' source and carries them out in the order of torch's other work. The memory
of such a tensor cannot be addressed from the host, so the library is given addresses that stand
for tensors: the number of the tensor in the high bits, where its elements begin in the low
ones.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from typing import Any

import torch

from .. import _native
from . import native, torch_arrays, torch_plain
from .problem import Problem, Tokens

DEVICE = "mps"  # the type of device whose tensors these are; tests have another
_ON_METAL = 1 << 20  # RUN_METAL in native/run.h
_SLOT = 44  # bits of an address within a tensor

_lock = threading.Lock()
_library: Any = None
_failure: Exception | None = None
_right: bool | None = None  # did the kernels compute what torch does, when they were first used?
_current = threading.local()
_said: set[str] = set()


def say(what: str, words: str) -> None:
    """One warning a process of each kind."""
    if what not in _said:
        _said.add(what)
        warnings.warn(f"late-interaction-kernels: {words}", RuntimeWarning, stacklevel=3)


# ---- carrying out ----


class Loan:
    """The tensors of one operation, in the shape of a framework for ``native``: what is lent
    has an address by which it is found again.
    """

    def __init__(self, like: Any) -> None:
        self.device = like.device
        self.tensors: list[Any] = []

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        return torch.empty(shape, dtype=getattr(torch, dtype), device=self.device)

    def lend(self, x: Any) -> Any:
        if x is None:
            return None
        x = torch_arrays.plain(x)
        self.tensors.append(x)
        address = len(self.tensors) << _SLOT | _begin(x)
        return torch_arrays.described(x, address, _ON_METAL)

    def lent(self, fields: tuple[Any, ...], arrays: int) -> Any:
        return (*map(self.lend, fields[:arrays]), *fields[arrays:])

    def find(self, address: int) -> Any:
        """The tensor at an address, from there on; None for what has no elements."""
        x = self.tensors[(address >> _SLOT) - 1]
        skip = (address & ((1 << _SLOT) - 1)) - _begin(x)
        if x.numel() == 0:
            return None
        return x if skip == 0 else x.view(-1).view(torch.uint8)[skip:]


def _begin(x: Any) -> int:
    """Bytes before a tensor in its buffer: how it is aligned."""
    return int(x.storage_offset()) * int(x.element_size())


def _carry_out(
    dispatches: list[tuple[str, int, tuple[int, ...], tuple[int, ...]]], workspace_bytes: int
) -> None:
    loan, library = _current.loan, _compiled()
    _, threads, workspace_at = _kernels
    workspace = torch.empty(max(workspace_bytes, 16), dtype=torch.uint8, device=loan.device)

    def tensor_at(address: int) -> Any:
        if not address:
            return workspace  # what is declared and not touched has to be something
        found = workspace[address - workspace_at :] if address >= workspace_at else loan.find(address)
        return workspace if found is None else found

    for name, groups, arguments, addresses in dispatches:
        buffers = map(tensor_at, addresses[1:])
        kernel = getattr(library, name)
        kernel(list(arguments), *buffers, threads=(groups * threads,), group_size=(threads,))


_kernels: Any = _native.register_metal(_carry_out)  # None: this build has none


def _compiled() -> Any:
    """The kernels, compiled once a process; what failed fails again."""
    global _library, _failure
    with _lock:
        if _failure is not None:
            raise _failure
        if _library is None:
            try:
                _library = torch.mps.compile_shader(_kernels[0])
            except Exception as failure:
                words = _first_error(str(failure))[:1000]
                _failure = RuntimeError(f"the Metal kernels do not compile here: {words}")
                raise _failure from failure
    return _library


def _first_error(log: str) -> str:
    """What a compiler says, from its first error on: warnings stand before."""
    at = log.find("error: ")
    return log if at < 0 else log[log.rfind("\n", 0, at) + 1 :]


def _lent(like: Any) -> Loan:
    loan = _current.loan = Loan(like)
    return loan


def score(p: Problem, want_argmax: bool) -> tuple[Any, Any]:
    try:
        return native.score(_lent(p.q.data), p, want_argmax)
    finally:
        _current.loan = None


def topk(p: Problem, k: int, id_base: int, smallest: bool) -> tuple[Any, Any]:
    try:
        return native.topk(_lent(p.q.data), p, k, id_base, smallest)
    finally:
        _current.loan = None


def grad(p: Problem, grad_scores: Any, argmax: Any, into: tuple[Any, Any, Any], accumulate: bool) -> None:
    try:
        native.grad(_lent(p.q.data), p, grad_scores, argmax, into, accumulate)
    finally:
        _current.loan = None


# ---- may it be used? ----


def is_available() -> bool:
    """Has this build the kernels, and this torch a Metal to run them on?"""
    return _kernels is not None and hasattr(torch.mps, "compile_shader") and torch.backends.mps.is_available()


def _verdict() -> bool:
    """Has ``lik selftest --device metal`` passed with this version on this machine?"""
    try:
        name, hardware = _native.metal_device()
    except RuntimeError:
        return False
    system, version = os.uname(), _native.info()[0]
    line = f"lik {version}, {name}, {hardware}, {system.sysname} {system.release} {system.machine}"
    path = os.path.join(_cache(), "late-interaction-kernels", f"selftest-{name.replace(':', '-')}.txt")
    try:
        with open(path, encoding="utf-8") as file:
            return [file.readline(), file.readline()] == [f"{line}, {system.version}\n", "passed\n"]
    except (OSError, UnicodeDecodeError):
        return False


def _cache() -> str:
    """The user's folder for what can be found again, as the command has it."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    if folder.startswith("/"):
        return folder
    below = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return os.path.join(os.environ.get("HOME", ""), below)


def _agrees(device: Any) -> bool:
    """One small problem on torch's queue, which the selftest did not go through."""
    like = {"dtype": torch.float32, "device": device}  # whatever torch makes by default
    q = torch.linspace(-1, 1, 2 * 5 * 24, **like).reshape(2, 5, 24)
    p = Problem(Tokens(q), Tokens(q.flip(0).sin()))
    want = torch.empty((2, 2), **like)
    torch_plain.score(p, want, None)
    try:
        got, _ = score(p, False)
        return bool(torch.allclose(got, want, rtol=1e-4, atol=1e-4))
    except Exception as failure:
        say("compile", str(failure))
        return False


def ready(device: Any, trusted: bool) -> bool:
    """May the kernels be used? ``trusted``: also without a verdict."""
    global _right
    if not is_available() or not (trusted or (passed() and not _fast())):
        return False
    if _right is None:
        _right = _agrees(device)
        if not _right and _failure is None:
            say("wrong", "the Metal kernels do not compute what torch does; torch operations are used")
    return _right


def _fast() -> bool:
    """Does torch compile with mathematics that know neither NaN nor infinities? The selftest
    was not compiled with them. As torch reads it: whatever is not 0.
    """
    fast = os.environ.get("PYTORCH_MPS_FAST_MATH", "0") != "0"
    if fast:
        say(
            "fast",
            "PYTORCH_MPS_FAST_MATH is set, with which torch would compile the Metal kernels so that "
            "they lose NaN and infinities; they are not used",
        )
    return fast


_passed: bool | None = None


def passed() -> bool:
    """The verdict, read once a process."""
    global _passed
    if _passed is None:
        _passed = _verdict()
    return _passed
