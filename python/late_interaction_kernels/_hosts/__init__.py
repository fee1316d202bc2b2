"""How the patches of host libraries replace functions, everywhere they have been captured, and
put them back.

A function that a module imported with ``from x import f``, that a class method binds as a
default argument, or that a live loss object stored, is not reached by setting ``x.f``.
:func:`swap` finds all three kinds among the modules of one host, and the same sweep with the
mapping turned around restores them.
"""

from __future__ import annotations

import gc
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from .._engine.environment import flag


def disabled() -> bool:
    """LIK_DISABLE=1: patched functions behave like the originals. Read at every call."""
    return flag("LIK_DISABLE")


def module(name: str) -> Any:
    """A module of a host, or None where this version of it has none."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def host_modules(host: str) -> list[types.ModuleType]:
    return [
        module
        for name, module in list(sys.modules.items())
        if isinstance(module, types.ModuleType) and (name == host or name.startswith(host + "."))
    ]


def _functions(module: types.ModuleType) -> Iterator[types.FunctionType]:
    """Functions and methods that the module defines."""
    for value in list(vars(module).values()):
        if isinstance(value, types.FunctionType):
            yield value
        elif isinstance(value, type) and value.__module__ == module.__name__:
            for member in list(vars(value).values()):
                member = getattr(member, "__func__", member)
                if isinstance(member, types.FunctionType):
                    yield member


def _owned_objects(host: str) -> Iterator[Any]:
    """Live torch modules whose class the host defines: losses made before the patch."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    for value in gc.get_objects():
        kind = type(value)
        if issubclass(kind, torch.nn.Module) and str(kind.__module__).split(".")[0] == host:
            yield value


def swap(host: str, replacements: list[tuple[Any, Any]]) -> None:
    """In everything the host has loaded, put each pair's second object where its first one
    is.
    """
    new = {id(old): value for old, value in replacements}
    for module in host_modules(host):
        for name, value in list(vars(module).items()):
            if id(value) in new:
                setattr(module, name, new[id(value)])
        for function in _functions(module):
            if function.__defaults__ and any(id(v) in new for v in function.__defaults__):
                function.__defaults__ = tuple(new.get(id(v), v) for v in function.__defaults__)
            if function.__kwdefaults__ and any(id(v) in new for v in function.__kwdefaults__.values()):
                function.__kwdefaults__ = {k: new.get(id(v), v) for k, v in function.__kwdefaults__.items()}
    for value in _owned_objects(host):
        for name, held in list(vars(value).items()):
            if id(held) in new:
                vars(value)[name] = new[id(held)]


def with_globals(function: Any, **replaced: Any) -> Callable[..., Any]:
    """The same code with some of the names it looks up replaced; defaults, closure and name are
    kept.
    """
    twin = types.FunctionType(
        function.__code__,
        {**function.__globals__, **replaced},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    twin.__doc__ = function.__doc__
    twin.__qualname__ = function.__qualname__
    twin.__module__ = function.__module__
    return twin


def dispatchable(*tensors: Any) -> bool:
    """May our functions score these: tensors of one device, floating point, with a dim, and not
    switched off?
    """
    import torch

    return (
        not disabled()
        and all(
            isinstance(t, torch.Tensor) and t.is_floating_point() and t.dim() > 0 and t.shape[-1] > 0
            for t in tensors
        )
        and len({t.device for t in tensors}) == 1
    )
