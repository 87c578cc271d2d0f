"""Contributions to a sum of trees: exact Shapley values in one walk of each tree for a row and a background row.

Where both rows take the same branch, there is one way down; where they part, an input decides: with the row's value it goes one
way (the input is then in S), with the background's the other. So each leaf that is reached has a set F of inputs that had to take
the row's value and a set A that had to keep the background's, and it is the answer of every S that contains F and misses A. Its
Shapley values are known in closed form: value x (f-1)! a! / (f+a)! to each input of F, -value x f! (a-1)! / (f+a)! to each of
A, with f and a their numbers (interventional TreeSHAP: Lundberg et al. 2020; in this form: Laberge and Pequignot, Understanding
interventional TreeSHAP, 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..inputs import Floats, Matrix
from ..windows.machine_code import machine_code
from .seen import Seen

__all__ = ["Trees", "tree_contributions"]

_SIGNATURE: Final = (
    "void(float64[:,::1], float64[:,::1], int32[::1], int32[::1], float64[::1], int32[::1], int32[::1], int32[::1], "
    "float64[::1], float64[:,::1], int64, float64[:,::1])"
)
SCALES: Final = ("log-odds", "log-ratio", "probability", "number")
_COLUMNS: Final = ("feature", "threshold", "below", "above", "missing", "value")


def tree_contributions(  # type: ignore[no-untyped-def]  # compiled for _SIGNATURE
    rows, background, roots, feature, threshold, below, above, missing, value, share, deepest, out
):  # fmt: skip
    """Add to `out` (rows, inputs) the contributions summed over background rows and trees. A value goes `below` where it is at
    most the threshold, `missing` where it is NaN; `feature` is -1 at a leaf. share[f, a] = f! a! / (f + a + 1)!."""
    waiting = np.empty(deepest + 2, np.int32)  # nodes still to go to
    depths = np.empty(deepest + 2, np.int32)  # how many inputs are decided there
    newest = np.empty(deepest + 2, np.int32)  # and the last of them: its input, coded with its side
    decided = np.empty(deepest + 2, np.int32)
    for r in range(rows.shape[0]):
        row = rows[r]
        for b in range(background.shape[0]):
            other = background[b]
            for t in range(roots.shape[0]):
                top = 1
                waiting[0], depths[0], newest[0] = roots[t], 0, 0
                while top > 0:
                    top -= 1
                    node, depth = waiting[top], depths[top]
                    if depth > 0:
                        decided[depth - 1] = newest[top]
                    while feature[node] >= 0:
                        f = feature[node]
                        x, z = row[f], other[f]
                        here = missing[node] if x != x else (below[node] if x <= threshold[node] else above[node])
                        there = missing[node] if z != z else (below[node] if z <= threshold[node] else above[node])
                        if here == there:
                            node = here
                            continue
                        side = -1
                        for d in range(depth):
                            if decided[d] >> 1 == f:
                                side = decided[d] & 1
                        if side == 1:
                            node = here
                        elif side == 0:
                            node = there
                        else:
                            waiting[top], depths[top], newest[top] = there, depth + 1, 2 * f
                            top += 1
                            decided[depth] = 2 * f + 1
                            depth += 1
                            node = here
                    ours = 0
                    for d in range(depth):
                        ours += decided[d] & 1
                    theirs = depth - ours
                    for d in range(depth):
                        f = decided[d] >> 1
                        if decided[d] & 1:
                            out[r, f] += value[node] * share[ours - 1, theirs]
                        else:
                            out[r, f] -= value[node] * share[ours, theirs - 1]


class Trees:
    """A sum of trees: answer = offset + the leaf of each tree. Nodes are columns, children after their parent:

    feature int32 (-1: a leaf), threshold float64, below, above, missing int32 (places of nodes), value float64 (of a leaf);
    roots int32. `scale`: "log-odds", "log-ratio", "probability" or "number", whichever the sum is."""

    kind: Final = "trees"

    def __init__(
        self, roots: Any, columns: dict[str, Any], offset: float, scale: str, background: Matrix, seen: Seen | None = None
    ) -> None:
        width = background.shape[1]
        self.scale, self._offset, self._background = scale, offset, background
        self._seen = seen or Seen.plain(width)
        kinds = {name: np.float64 if name in ("threshold", "value") else np.int32 for name in _COLUMNS}
        self._columns = {name: np.ascontiguousarray(columns[name], kinds[name]) for name in _COLUMNS}
        self._roots = np.ascontiguousarray(roots, np.int32)
        self._deepest = _checked(self._roots, self._columns, width, scale)
        self._share = _shares(min(self._deepest, width) + 1)
        self.base = float(np.mean(self.answers(background)))
        self._compiled: Callable[..., None] | None = None

    def answers(self, X: Matrix) -> Floats:  # noqa: N803
        """The sums, float64 (rows,)."""
        rows, at = self._seen(X), self._columns
        found, every = np.full(len(X), self._offset), np.arange(len(X))
        for root in self._roots:
            node = np.full(len(X), root)
            while (at["feature"][node] >= 0).any():
                feature = at["feature"][node]
                value = rows[every, np.maximum(feature, 0)]
                down = np.where(value <= at["threshold"][node], at["below"][node], at["above"][node])
                down = np.where(np.isnan(value), at["missing"][node], down)
                node = np.where(feature >= 0, down, node)
            found += at["value"][node]
        return found

    def contributions(self, X: Matrix) -> Floats:  # noqa: N803
        rows, background = (np.ascontiguousarray(self._seen(each)) for each in (X, self._background))
        out = np.zeros((len(X), self._background.shape[1]))
        if self._compiled is None:
            self._compiled = machine_code(tree_contributions, _SIGNATURE, [tree_contributions], {"np": np})
        assert self._compiled is not None
        self._compiled(
            rows, background, self._roots, *(self._columns[name] for name in _COLUMNS), self._share, self._deepest, out
        )  # fmt: skip
        return out / len(background)

    def explained(self, X: Matrix) -> tuple[Floats, Floats]:  # noqa: N803
        found = self.contributions(X)
        return found, np.zeros_like(found)

    def arrays(self) -> dict[str, Any]:
        said = np.frombuffer(self.scale.encode(), np.uint8)
        narrow = {name: c.astype(np.float32) if c.dtype == np.float64 else c for name, c in self._columns.items()}  # as in ONNX
        whole = {"roots": self._roots, **narrow, "offset": np.float64(self._offset), "scale": said}
        return whole | {"background": self._background} | self._seen.arrays()

    @classmethod
    def of_arrays(cls, arrays: dict[str, Any], score: object) -> Trees:
        background = np.asarray(arrays["background"], np.float32)
        seen = Seen.of_arrays(arrays, background.shape[1])
        scale = arrays["scale"].tobytes().decode()
        return cls(arrays["roots"], arrays, float(arrays["offset"]), scale, background, seen)


def _checked(roots: npt.NDArray[np.int32], columns: dict[str, Any], width: int, scale: str) -> int:
    """The depth of the deepest tree. ValueError where the walk could leave the arrays, or not end."""
    nodes = len(columns["feature"])
    if any(column.shape != (nodes,) for column in columns.values()) or scale not in SCALES:
        raise ValueError("the columns of nodes do not fit")
    inner = np.flatnonzero(columns["feature"] >= 0)
    children = np.stack([columns[name][inner] for name in ("below", "above", "missing")])
    if (columns["feature"] >= width).any() or (children <= inner).any() or (children >= nodes).any():
        raise ValueError("a node points to no later node, or to no input")
    if not len(roots) or (roots < 0).any() or (roots >= nodes).any():
        raise ValueError("a root is no node")
    depth = np.zeros(nodes, np.int64)
    for place, node in enumerate(inner):
        depth[children[:, place]] = np.maximum(depth[children[:, place]], depth[node] + 1)
    return int(depth.max())


def _shares(size: int) -> Floats:
    """share[f, a] = f! a! / (f + a + 1)!, for f and a up to `size`."""
    found = np.empty((size + 1, size + 1))
    found[0] = 1.0 / np.arange(1, size + 2)
    for f in range(1, size + 1):
        found[f] = found[f - 1] * f / (np.arange(size + 1) + f + 1)
    return found
