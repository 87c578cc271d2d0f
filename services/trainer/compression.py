"""Compressing a fitted ONNX model, and judging what came out: the smaller file is offered if its log loss stays within bounds.

Nothing is held out from fitting (see `fitting`), so both are judged on training rows, without those that calibration saw: their
losses are lower than in use, their difference is what the bound is about. Same model, same rows, same versions: same bytes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from penstock.compression import Compression
from penstock.inputs import Floats, Matrix
from penstock.records import Compressed, Weighed
from penstock.statistics.measures import auc, log_loss

from .fitting import answering

__all__ = ["compressed"]

CALIBRATION: Final = 1_000
"""Rows at most, every fifth; more do not change the ranges of activations much."""
JUDGED: Final = 20_000
TIMED: Final = 100
"""Requests of one row, of which the median is taken."""
_MATRICES: Final = frozenset({"Conv", "Gemm", "MatMul"})
Labels = npt.NDArray[np.bool_]


def compressed(onnx: bytes, wanted: Compression, X: Matrix, label: Labels, timed: bool = False) -> tuple[bytes, Compressed]:  # noqa: N803
    """The model to offer and how it came to that; `timed` measures latencies, which differ from run to run."""
    seen = np.arange(0, len(label), 5)
    seen = seen[np.unique(np.linspace(0, len(seen) - 1, CALIBRATION).astype(int))]
    rest = np.setdiff1d(np.arange(len(label)), seen)
    rest = rest[np.unique(np.linspace(0, len(rest) - 1, JUDGED).astype(int))]
    rows, labels = X[rest], label[rest]
    before, after, small = _weighed(onnx, rows, labels, timed), None, onnx
    reason = _nothing_to_do(onnx)
    if not reason:
        try:
            small = _made(onnx, wanted.method, X[seen])
            after = _weighed(small, rows, labels, timed)
        except Exception as error:  # of the quantiser or of the runtime: whatever it is, there is the original
            reason = f"{wanted.method} does not work for it: {type(error).__name__}: {error}"[:300]
        else:
            reason = _against(before, after, wanted.within)
    said = Compressed(
        method=wanted.method, within=wanted.within, served=not reason,
        reason=reason or "smaller, and its log loss stays within the bound", rows=len(rest), before=before, after=after,
    )  # fmt: skip
    return (onnx if reason else small), said


def _against(before: Weighed, after: Weighed, within: float) -> str:
    """Why the compressed model is not offered; empty: nothing is."""
    if after.log_loss is None or before.log_loss is None:
        return "it does not give a probability for every row"
    loss = after.log_loss - before.log_loss
    if loss > within:
        return f"its log loss is {loss:+.6f} against the original's; at most {within:+g} was allowed"
    if after.size >= before.size:
        return f"it is not smaller: {after.size} bytes against {before.size}"
    return ""


def _nothing_to_do(onnx: bytes) -> str:
    from onnx import load_from_string

    graph = load_from_string(onnx).graph
    constants = {tensor.name for tensor in graph.initializer}
    if any(node.op_type in _MATRICES and constants.intersection(node.input) for node in graph.node):
        return ""
    kinds = ", ".join(dict.fromkeys(node.op_type for node in graph.node if node.domain == "ai.onnx.ml"))
    return f"it has no matrices to compress: its numbers lie in nodes ({kinds or 'none'}) that no method reaches"


def _made(onnx: bytes, method: str, calibration: Matrix) -> bytes:
    from onnx import load_from_string, save
    from onnxruntime.quantization import quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process
    from onnxruntime.transformers.float16 import convert_float_to_float16

    whole = load_from_string(onnx)
    with tempfile.TemporaryDirectory() as folder:
        ready, made = (Path(folder, f"{name}.onnx") for name in ("ready", "made"))
        if method == "float16":
            save(convert_float_to_float16(whole, keep_io_types=True), made)
        else:
            quant_pre_process(whole, ready, skip_optimization=True, skip_symbolic_shape=True)
            if method == "int8":
                quantize_static(ready, made, _Calibration(whole.graph.input[0].name, calibration), per_channel=True)
            else:
                quantize_dynamic(ready, made)
        return made.read_bytes()


class _Calibration:
    """The rows as onnxruntime asks for them: one batch, then None."""

    def __init__(self, name: str, rows: Matrix) -> None:
        self._batches: Iterator[dict[str, Matrix]] = iter([{name: rows}])

    def get_next(self) -> dict[str, Matrix] | None:
        return next(self._batches, None)


def _weighed(onnx: bytes, rows: Matrix, labels: Labels, timed: bool) -> Weighed:
    ask = answering(onnx)
    alone = b"DynamicQuantizeLinear" in onnx  # as it is served
    score: Floats = np.concatenate([ask(row[None]) for row in rows]) if alone else ask(rows)
    good = bool(((score >= 0) & (score <= 1)).all())
    return Weighed(
        size=len(onnx),
        log_loss=log_loss(labels, score) if good else None,
        auc=auc(labels, score) if good else None,
        latency=_latency(ask, rows) if timed else None,
    )


def _latency(ask: Any, rows: Matrix) -> float:
    taken = []
    for at in range(TIMED):
        row = rows[at % len(rows)][None]
        began = time.perf_counter()
        ask(row)
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))
