"""The environment variables that Python reads, at every call so that they can be changed."""

from __future__ import annotations

import os
import warnings

_warned: set[str] = set()


def flag(name: str) -> bool:
    """Is the variable 1? What is neither 0, 1 nor nothing counts as 0, with one warning."""
    value = os.environ.get(name, "")
    if value not in ("", "0", "1") and name not in _warned:
        warnings.warn(
            f"late-interaction-kernels: {name} is {value[:40]!r}, must be 0 or 1; it is ignored",
            RuntimeWarning,
            stacklevel=3,
        )
        _warned.add(name)
    return value == "1"


def checking() -> bool:
    """LIK_CHECK, as the library reads it: values in device memory are waited for and
    looked at.
    """
    return os.environ.get("LIK_CHECK", "") not in ("", "0")
