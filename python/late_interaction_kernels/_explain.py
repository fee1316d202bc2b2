"""The tokens behind one score: :func:`explain`, whose pages and pictures the ``lik`` command of
the package draws.
"""

from __future__ import annotations

import html
import os
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

from . import _command
from ._engine.checks import FLOATS, check_pair, check_rank, framework
from ._engine.problem import detached
from .autograd import maxsim
from .files import path_text, save
from .int8 import dequantize_int8_per_token


class Match(NamedTuple):
    """A query token and the document token that it took."""

    query_token: int
    document_token: int
    query_text: str
    document_text: str
    similarity: float
    weight: float
    adds: float  # weight * similarity: what it adds to the score


class Explanation:
    """What :func:`explain` found: ``score``, ``matches`` (a list of :class:`Match`),
    ``similarities`` ``[Lq, Ld]``. A notebook shows the heat map, ``print`` the text form.
    """

    score: float
    matches: list[Match]
    similarities: Any

    def __init__(
        self, score: float, matches: list[Match], similarities: Any, drawing: dict[str, Any]
    ) -> None:
        self.score, self.matches, self.similarities = score, matches, similarities
        self._drawing = drawing

    def _draw(self, *arguments: str) -> str:
        with tempfile.TemporaryDirectory(prefix="lik-") as folder:
            files = []
            for side in ("query", "document"):
                about = {k: v for k, v in self._drawing[side].items() if v is not None}
                files.append(os.path.join(folder, side + ".safetensors"))
                save(files[-1], about.pop("data"), **about)
            normalize = ["--normalize"] if self._drawing["normalize"] else []
            return _command.run("explain", *files, *normalize, *arguments)

    def save(self, path: str | os.PathLike[str], *, cmap: str = "viridis") -> None:
        """Write the heat map: a page if ``path`` ends in ``.html``, a picture if in ``.svg``.
        Both are self-contained. ``cmap`` is "viridis" or "grey".
        """
        path = path_text(path)
        if not path.endswith((".html", ".svg")):
            raise ValueError(f"path must end in .html or .svg, got {path!r}")
        if cmap not in ("viridis", "grey"):
            raise ValueError(f'cmap must be "viridis" or "grey", got {cmap!r}')
        self._draw("-o", os.path.abspath(path), "--cmap", cmap)

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that its style and the notebook's do not meet."""
        with tempfile.TemporaryDirectory(prefix="lik-") as folder:
            path = os.path.join(folder, "x.html")
            self.save(path)
            with open(path, encoding="utf-8") as file:
                page = html.escape(file.read())
        style = f"width:100%;height:{420 + 42 * len(self.matches)}px;border:0"
        return f'<iframe srcdoc="{page}" style="{style}" title="heat map"></iframe>'

    def __str__(self) -> str:
        return self._draw()

    def __repr__(self) -> str:
        rows, columns = (int(n) for n in self.similarities.shape)
        return f"Explanation(score={self.score:.4f}, {rows} query tokens, {columns} document tokens)"


def _sayable(text: str) -> str:
    """With replacement characters for what no file of texts holds: NUL, halves of a pair."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


# Long because of its docstring.
def explain(
    Q: Any,
    D: Any,
    q_tokens: Sequence[str] | None = None,
    d_tokens: Sequence[str] | None = None,
    *,
    q_mask: Any = None,
    d_mask: Any = None,
    q_weights: Any = None,
    normalize: bool = False,
    q_text: str | None = None,
    d_text: str | None = None,
) -> Explanation:
    """Which tokens matched: the heat map of one query and one document.

    Args:
        Q: query tokens ``[Lq, d]``.
        D: document tokens ``[Ld, d]``, or the pair of ``quantize_int8_per_token``.
        q_tokens, d_tokens: what the tokens are called, one text each. Marks of tokenizers
            (``##ing``, ``▁the``) are taken off.
        q_mask, d_mask, q_weights, normalize: as in :func:`maxsim`, which does not normalize
            unless it is told to.
        q_text, d_text: texts that the tokens are from; without them tokens are joined.

    Returns:
        An :class:`Explanation`: ``matches`` and ``similarities`` are data, ``.save("x.html")``
        and ``.save("x.svg")`` draw, a notebook shows it, ``print`` writes it.

    Raises:
        ValueError: shapes, and names that are not one a token.
        RuntimeError: when drawing, a build without the ``lik`` command.

    Example:
        >>> import numpy as np, late_interaction_kernels as lik
        >>> Q, D = np.eye(2, 4), np.eye(4)[::-1]
        >>> found = lik.explain(Q, D, ["sea", "sky"], ["a", "b", "air", "sea"])
        >>> [(m.query_text, m.document_text, m.adds) for m in found.matches]
        [('sea', 'sea', 1.0), ('sky', 'air', 1.0)]
        >>> found
        Explanation(score=2.0000, 2 query tokens, 4 document tokens)
    """
    if isinstance(D, tuple):
        if len(D) != 2:
            raise ValueError(f"D must be an array or (values, scales), got {len(D)} items")
        check_pair(framework(**{"D[0]": D[0], "D[1]": D[1]}), *D, ("D[0]", "D[1]"), "int8")
        D = dequantize_int8_per_token(*D)
    fw = framework(Q=Q, D=D, q_mask=q_mask, d_mask=d_mask, q_weights=q_weights)
    check_rank("Q", Q, (2,), "[Lq, d]")
    check_rank("D", D, (2,), "[Ld, d]")
    names = {"q_tokens": (q_tokens, Q), "d_tokens": (d_tokens, D)}
    for name, (given, x) in names.items():
        if given is None:
            continue
        listed = hasattr(given, "__len__") and not isinstance(given, (str, bytes))
        if not listed or len(given) != x.shape[0]:
            said = f"{len(given)}" if listed else f"one {type(given).__name__}"
            raise ValueError(f"{name} must be {int(x.shape[0])} texts, one a token, got {said}")
    for name, text in (("q_text", q_text), ("d_text", d_text)):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{name} must be a str, got {type(text).__name__}")
    Q, D, q_weights = detached((Q, D, q_weights))
    Q, D = (x if fw.dtype_name(x) in FLOATS else fw.cast(x, "float32") for x in (Q, D))
    about = {"q_weights": q_weights, "normalize": normalize}
    score, winners = maxsim(Q, D, q_mask, d_mask, return_argmax=True, **about)
    similarities = maxsim(Q[:, None], D[:, None], normalize=normalize)
    weights = [1.0] * int(Q.shape[0]) if q_weights is None else [float(w) for w in q_weights.tolist()]
    matches = []
    for s, t in enumerate(winners.tolist()):
        if t >= 0:
            texts = [
                f"#{i}" if given is None else str(given[i])
                for (given, _), i in zip(names.values(), (s, t), strict=True)
            ]
            value = float(similarities[s, t])
            matches.append(Match(s, t, texts[0], texts[1], value, weights[s], weights[s] * value))
    sides = {
        "query": (Q, q_tokens, q_mask, q_weights, q_text),
        "document": (D, d_tokens, d_mask, None, d_text),
    }
    drawing: dict[str, Any] = {"normalize": normalize}
    for side, (x, tokens, mask, given, text) in sides.items():
        drawing[side] = {
            "data": x[None],
            "ids": [side],
            "mask": None if mask is None else mask[None],
            "weights": None if given is None else given[None],
            "texts": None if text is None else [_sayable(text)],
            "token_texts": None if tokens is None else [[_sayable(str(x)) for x in tokens]],
        }
    return Explanation(float(score), matches, similarities, drawing)


__all__ = ["Explanation", "Match", "explain"]
