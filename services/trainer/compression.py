"""Compressing a fitted ONNX model, and judging what came out: the smaller file is offered if its loss stays within bounds.

Nothing is held out from fitting (see `fitting`), so both are judged on training rows, without those that calibration saw: their
losses are lower than in use, their difference is what the bound is about. Same model, same rows, same versions: same bytes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from penstock.compression import Compression
from penstock.inputs import Floats, Matrix
from penstock.label import GREATEST, Label
from penstock.records import Compressed, Quality, Weighed
from penstock.statistics.kinds import YES_NO, Kind, kind_of
from penstock.statistics.measures import auc, log_loss
from penstock.statistics.quality import mean_loss

from .fitting import answering

__all__ = ["compressed"]

CALIBRATION: Final = 1_000
"""Rows at most, every fifth; more do not change the ranges of activations much."""
JUDGED: Final = 20_000
ROUNDED: Final = 1e-6
"""Probabilities of classes are of float32."""
TIMED: Final = 100
"""Requests of one row, of which the median is taken."""
_MATRICES: Final = frozenset({"Conv", "Gemm", "MatMul"})
Labels = npt.NDArray[Any]


def compressed(
    onnx: bytes,
    wanted: Compression,
    X: Matrix,  # noqa: N803
    label: Labels,
    timed: bool = False,
    declared: Label | None = None,
    classes: Sequence[str] = (),
) -> tuple[bytes, Compressed]:
    """The model to offer and how it came to that; `timed` measures latencies, which differ from run to run. `label` is as for
    `fit`; `classes` are those of the columns of its answers."""
    seen = np.arange(0, len(label), 5)
    seen = seen[np.unique(np.linspace(0, len(seen) - 1, CALIBRATION).astype(int))]
    rest = np.setdiff1d(np.arange(len(label)), seen)
    rest = rest[np.unique(np.linspace(0, len(rest) - 1, JUDGED).astype(int))]
    scales = _Scales(X[rest], label[rest], declared, classes, timed)
    before, after, small = scales.weigh(onnx), None, onnx
    reason = _nothing_to_do(onnx)
    if not reason:
        try:
            small = _made(onnx, wanted.method, X[seen])
            after = scales.weigh(small)
        except Exception as error:  # of the quantiser or of the runtime: whatever it is, there is the original
            reason = f"{wanted.method} does not work for it: {type(error).__name__}: {error}"[:300]
        else:
            reason = _against(before, after, wanted.within * (scales.prior or 1.0), scales.kind.loss)
    said = Compressed(
        method=wanted.method, within=wanted.within, served=not reason, loss=scales.kind.loss, prior=scales.prior,
        reason=reason or f"smaller, and its {scales.kind.loss} stays within the bound", rows=len(rest),
        before=before, after=after,
    )  # fmt: skip
    return (onnx if reason else small), said


def _against(before: Weighed, after: Weighed, within: float, name: str) -> str:
    """Why the compressed model is not offered; empty: nothing is."""
    if after.loss is None or before.loss is None:
        return f"it does not give a {'probability' if name == 'log loss' else 'number'} for every row"
    loss = after.loss - before.loss
    if loss > within:
        return f"its {name} is {loss:+.6f} against the original's; at most {within:+g} was allowed"
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


class _Scales:
    """Rows that models are judged on, with their labels. `prior`: of labels that are numbers, the mean loss of the best constant
    answer to them."""

    def __init__(self, rows: Matrix, labels: Labels, declared: Label | None, classes: Sequence[str], timed: bool) -> None:
        self.kind: Kind = kind_of(declared) if declared else YES_NO
        self.prior: float | None = None
        self._rows, self._labels, self._timed, self._classes = rows, labels, timed, classes
        self._task = declared.task if declared else "binary"
        self._truths = [declared.classes[at] for at in labels.tolist()] if declared and declared.classes else labels.tolist()

    def weigh(self, onnx: bytes) -> Weighed:
        ask = answering(onnx, self._task)
        alone = b"DynamicQuantizeLinear" in onnx  # as it is served
        score: Floats = np.concatenate([ask(row[None]) for row in self._rows]) if alone else ask(self._rows)
        number, yes_no = self._task == "regression", self._task == "binary"
        good = bool((np.abs(score) <= GREATEST).all() if number else ((score >= 0) & (score <= 1 + ROUNDED)).all())
        quality = self._counted(score) if good else Quality()
        loss = log_loss(self._labels, score) if good and yes_no else mean_loss(quality)
        if number and good and self.prior is None:
            prior = self.kind.prior(quality.n, quality.positives, quality)
            self.prior = self.kind.prior_loss(prior, quality) / quality.n
        return Weighed(
            size=len(onnx),
            log_loss=None if number else loss,
            auc=auc(self._labels, score) if good and yes_no else None,
            latency=_latency(ask, self._rows) if self._timed else None,
            loss=loss,
            measures={name: measure.value for name, measure in self.kind.measured(quality, None, None).items()},
        )

    def _counted(self, score: Floats) -> Quality:
        said: Any = score.tolist()
        if self.kind.many:
            said = [dict(zip(self._classes, row, strict=True)) for row in said]
        sums = self.kind.sums()
        for answer, truth in zip(said, self._truths, strict=True):
            self.kind.add(sums, answer, truth)
        return self.kind.told(sums.frozen())


def _latency(ask: Any, rows: Matrix) -> float:
    taken = []
    for at in range(TIMED):
        row = rows[at % len(rows)][None]
        began = time.perf_counter()
        ask(row)
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))
