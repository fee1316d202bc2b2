"""What type checkers are told: an argument's kind of array is that of its neighbors and of the
result. Neither framework is imported when the package runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Array = TypeVar("Array", torch.Tensor, NDArray[Any])
else:
    Array = TypeVar("Array")

Storage = Literal["int8", "fp8"]
