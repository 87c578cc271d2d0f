"""Bins: how often each input fell where, against one version's reference edges (see penstock.inputs.counted).

Counts add across partitions and batches exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from penstock.inputs import InputsDecoder, Matrix, counted

__all__ = ["Binner", "Counts"]

Counts = npt.NDArray[np.int64]


class Binner:
    """Counts batches of inputs, still as JSON objects. Inputs whose reference does not fit their edges are left out:
    there is nothing to compare them with."""

    def __init__(self, edges: Mapping[str, Sequence[float]], reference: Mapping[str, Sequence[int]]) -> None:
        fit = [name for name in sorted(edges) if len(reference.get(name, ())) == len(edges[name]) + 2]
        self._edges = {name: np.asarray(edges[name], np.float64) for name in fit}
        self.reference = {name: list(reference[name]) for name in fit}
        self._decoder = InputsDecoder(fit)

    @property
    def names(self) -> list[str]:
        return list(self._edges)

    def empty(self) -> dict[str, Counts]:
        return {name: np.zeros(len(edges) + 2, np.int64) for name, edges in self._edges.items()}

    def add(self, into: dict[str, Counts], rows: Sequence[Any]) -> int:
        """Count rows of inputs; returns how many could not be read (they are counted nowhere else)."""
        unread = 0
        try:
            matrix = self._decoder.matrix(rows)
        except msgspec.MsgspecError:
            single = [self._single(raw) for raw in rows]
            readable = [row for row in single if row is not None]
            unread = len(rows) - len(readable)
            matrix = np.concatenate(readable) if readable else np.empty((0, len(self._edges)), np.float32)
        for i, (name, edges) in enumerate(self._edges.items()):
            into[name] += np.asarray(counted(matrix[:, i], edges), np.int64)  # type: ignore[arg-type]
        return unread

    def _single(self, raw: Any) -> Matrix | None:
        try:
            return self._decoder.matrix([raw])
        except msgspec.MsgspecError:
            return None
