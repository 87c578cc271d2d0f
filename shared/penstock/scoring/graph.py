"""A graph: an ONNX model opened by onnxruntime, run once, and known: what it takes and gives, and whether rows may be put
together.

Opening runs no code of the file's and reads no other file (`penstock.artefact.inspected`). A graph runs on one thread:
small models gain nothing from two, and processes scale.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from penstock.artefact import inspected
from penstock.errors import PenstockError, Refused

from .signature import DATATYPES, ONNX, Array, Signature, Tensor

__all__ = ["Graph"]

_ZIPMAP: Final = ("seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))")
"""What skl2onnx gives unless zipmap is off: a dictionary a row, of probabilities by label. Served as FP32 [rows, labels]."""

_PER_BATCH: Final = b"DynamicQuantizeLinear"
"""A node that takes its scale from all rows of a run (dynamic int8), so that rows see each other, by less than _NEAR at times."""

_PROOF_ROWS: Final = 4
_NEAR: Final = 1e-4
"""Relative difference between a row alone and among others that rounding explains: matrix products of other sizes add up in
another order."""


class Graph:
    """An open model. `run` may be called from several threads."""

    def __init__(self, data: bytes) -> None:
        """PenstockError, in words, when these bytes cannot be served."""
        import onnxruntime

        inspected(data, "onnx")
        self.sha256, self.size = hashlib.sha256(data).hexdigest(), len(data)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common class
            raise PenstockError(f"it is no ONNX model that runs here: {_first(error)}", "convert it again") from None
        inputs = tuple(_tensor(given, "input") for given in self._session.get_inputs())
        self._maps = frozenset(given.name for given in self._session.get_outputs() if given.type in _ZIPMAP)
        outputs = tuple(_tensor(given, "output") for given in self._session.get_outputs())
        self.signature = Signature(inputs, outputs, False)
        self._learn(inputs, outputs, _PER_BATCH not in data)

    def run(self, wanted: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs wanted, in that order. Refused (schema) when the model does not take these values."""
        try:
            found = self._session.run(wanted, feeds)
        except Exception as error:  # see above
            raise Refused("schema", f"the model does not take these values: {_first(error)}") from None
        if self._maps:
            return [_matrix(values) if name in self._maps else values for name, values in zip(wanted, found, strict=True)]
        return found  # type: ignore[no-any-return]

    def _learn(self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], apart: bool) -> None:
        """Run it for the first time (which is slow), fill in what a run shows of its outputs, and see whether rows are
        independent. A model that takes no made-up values is served as it is, a request at a time."""
        names = tuple(tensor.name for tensor in outputs)
        drawn = np.random.default_rng(0)
        feeds = {tensor.name: _made_up(tensor, drawn) for tensor in inputs}
        try:
            whole = self.run(names, feeds)
        except Refused:
            return
        outputs = tuple(
            Tensor(t.name, t.datatype, t.shape if t.name not in self._maps else [-1, found.shape[1]])
            for t, found in zip(outputs, whole, strict=True)
        )
        rows = apart and all(tensor.shape[:1] == [-1] for tensor in (*inputs, *outputs)) and bool(inputs)
        if rows and all(len(found) == _PROOF_ROWS for found in whole):
            try:
                alone = [self.run(names, {name: feeds[name][i : i + 1] for name in feeds}) for i in range(_PROOF_ROWS)]
                rows = all(_same(found, [a[n] for a in alone]) for n, found in enumerate(whole))
            except Refused:
                rows = False
        else:
            rows = False
        self.signature = Signature(inputs, outputs, rows)


def _tensor(given: Any, kind: str) -> Tensor:
    if given.type in _ZIPMAP:
        return Tensor(given.name, "FP32", [-1, -1])
    if given.type not in ONNX:
        raise PenstockError(f"{kind} {given.name!r} is {given.type}, which the protocol has no datatype for", "convert it again")
    return Tensor(given.name, ONNX[given.type], [size if isinstance(size, int) else -1 for size in given.shape])


def _made_up(tensor: Tensor, drawn: np.random.Generator) -> Array:
    """Values for the first run; dimensions of any size are 4 rows, then 1."""
    shape = [(_PROOF_ROWS if not at else 1) if size < 0 else size for at, size in enumerate(tensor.shape)]
    if tensor.datatype == "BYTES":
        return drawn.choice(np.array(["", "a", "b"], object), shape)
    if tensor.datatype.startswith("FP"):
        return (drawn.normal(size=shape) * 3).astype(DATATYPES[tensor.datatype])
    return drawn.integers(0, 2, shape).astype(DATATYPES[tensor.datatype])


def _same(together: Array, alone: Sequence[Array]) -> bool:
    if any(found.shape != (1, *together.shape[1:]) for found in alone):
        return False
    single = np.concatenate(alone)
    if together.dtype.kind == "f":
        return bool(np.allclose(together, single, rtol=_NEAR, atol=_NEAR, equal_nan=True))
    return bool((together == single).all())


def _matrix(rows: Sequence[Mapping[Any, float]]) -> Array:
    """Probabilities by label as columns, in the order of the labels."""
    return np.array([list(row.values()) for row in rows], np.float32).reshape(len(rows), -1)


def _first(error: Exception) -> str:
    """The first line of a runtime's words, without its number."""
    said = str(error).strip().partition("\n")[0]
    return said.rpartition(" : ")[2][:300] or type(error).__name__
