"""Kept for imports of the existing package, which compiles its reference here. Nothing is compiled at run time."""

from __future__ import annotations

from typing import Any

_compiled_cache: dict[tuple[Any, ...], Any] = {}
