"""Bins: how often each input fell where, against one version's reference edges (see penstock.inputs.counted).

Counts add across partitions and batches exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from penstock.inputs import InputsDecoder, counted

__all__ = ["Binner"]


class Binner:
    """Counts batches of inputs, still as JSON objects. Inputs whose reference does not fit their edges are left out:
    there is nothing to compare them with."""

    def __init__(self, edges: Mapping[str, Sequence[float]], reference: Mapping[str, Sequence[int]]) -> None:
        fit = [name for name in sorted(edges) if len(reference.get(name, ())) == len(edges[name]) + 2]
        self._edges = {name: np.asarray(edges[name], np.float64) for name in fit}
        self.reference = {name: list(reference[name]) for name in fit}
        self._decoder = InputsDecoder(fit)

    def count(self, rows: Sequence[Any]) -> tuple[dict[str, list[int]], int]:
        """Counts per bin by input, and how many rows could not be read (they are counted nowhere else)."""
        readable = rows
        try:
            matrix = self._decoder.matrix(rows)
        except msgspec.MsgspecError:
            readable = [row for row in rows if self._fits(row)]
            matrix = self._decoder.matrix(readable)
        columns = zip(self._edges.items(), matrix.T, strict=True)
        return {name: counted(column, edges) for (name, edges), column in columns}, len(rows) - len(readable)  # type: ignore[arg-type]

    def _fits(self, row: Any) -> bool:
        try:
            self._decoder.matrix([row])
        except msgspec.MsgspecError:
            return False
        return True
