"""A Mac for the Python package: CPU tensors stand for those of an Apple GPU, and the emulator
for what torch compiles and runs on one.

``torch.mps.compile_shader`` is held to what torch's own takes (torch/csrc/mps/Module.cpp): a
call's arguments are buffers by position, lists of integers become 64-bit ones of at most 4096
bytes, the grid is in threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from late_interaction_kernels import _native
from late_interaction_kernels._engine import short, torch_metal, torch_mps, torch_ops


class Argument(ctypes.Structure):
    """struct emulate_argument."""

    _fields_ = (("memory", ctypes.c_void_p), ("bytes", ctypes.c_size_t))


def emulator() -> Any:
    library = ctypes.CDLL(os.environ["LIK_MOCK_METAL"])
    library.emulate.restype = ctypes.c_char_p
    return library


class Library:
    """What compile_shader returns. ``calls`` are the kernels that ran."""

    def __init__(self, source: str) -> None:
        assert source.isascii()
        assert all(word in source for word in ("kernel void", "lik_score_f32", "#include <metal_stdlib>"))
        assert '#include "' not in source
        self.emulator = emulator()
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if not self.emulator.emulate_has(name.encode()):
            raise RuntimeError(f"Failed to create function state object for: {name}")

        def kernel(*given: Any, threads: Any, group_size: Any) -> None:
            arguments, held = (Argument * 31)(), []
            assert len(given) <= 31 and len(threads) == len(group_size) == 1
            for i, x in enumerate(given):
                if isinstance(x, list):
                    assert 0 < len(x) <= 512 and all(type(word) is int for word in x)
                    held.append((ctypes.c_int64 * len(x))(*x))
                    arguments[i] = Argument(ctypes.addressof(held[-1]), 8 * len(x))
                    continue
                assert isinstance(x, torch.Tensor) and x.device.type == torch_metal.DEVICE and x.numel()
                end = x.untyped_storage().data_ptr() + x.untyped_storage().nbytes()
                arguments[i] = Argument(x.data_ptr(), end - x.data_ptr())
            assert threads[0] % group_size[0] == 0
            sizes = [(ctypes.c_size_t * 3)(n, 1, 1) for n in (threads[0] // group_size[0], group_size[0])]
            wrong = self.emulator.emulate(name.encode(), arguments, 31, *sizes)
            assert wrong is None, f"{name}: {wrong.decode()}"
            self.calls.append(name)

        return kernel


@contextlib.contextmanager
def a_mac(passed: bool | None = True, library: Any = Library) -> Iterator[list[Any]]:
    """Within it there is one. ``passed``: the verdict of lik selftest; None: look for it.
    Yields the libraries that were compiled.
    """
    made: list[Any] = []

    def compile_shader(source: str) -> Any:
        made.append(library(source))
        return made[-1]

    with contextlib.ExitStack() as stack:
        for target, name, value in (
            (torch_metal, "DEVICE", "cpu"),
            (torch_metal, "_passed", passed),
            (torch_metal, "_library", None),
            (torch_metal, "_failure", None),
            (torch_metal, "_right", None),
            (torch_metal, "_said", set()),
            (torch_ops, "served", lambda x: False),
            (short, "compiling", lambda: True),
            (_native, "maxsim_backward", lambda *a: None),
            (torch.mps, "compile_shader", compile_shader),
            (torch.backends.mps, "is_available", lambda: True),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        torch_mps.compiled_cache.clear()
        yield made
