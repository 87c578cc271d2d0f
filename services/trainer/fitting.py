"""Fitting: a window of rows becomes an ONNX model whose answers are proven to be the learner's, and the bins of its
inputs.

Nothing is held out: a candidate is judged on live traffic before it may answer (holding out the newest rows costs 0.9
to 1.3 points of accuracy under drift; see the facts on monitoring and learning). The metrics here are of the training
rows and say so by name. Same rows, same seed, same versions: same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from penstock.errors import PenstockError
from penstock.inputs import Floats, Matrix
from penstock.label import Label
from penstock.model import BatchLearner
from penstock.scoring.around import Around
from penstock.statistics.loss import CLIP
from penstock.statistics.measures import auc, log_loss
from penstock.statistics.reference import FEW_BINS, Numbers

__all__ = ["Fitted", "Unfit", "answering", "fit"]

LEAST = 100
"""Fewer rows than this are no basis for a model."""
SAMPLE = 20_000
"""Rows that training metrics are computed on, evenly spaced over the window; parity is proven on a tenth."""
TOLERANCE, EXCEPTIONS = 1e-4, 1e-3
"""Probabilities may differ by more than the first on this share of rows: float32 rounds a threshold to the other side."""

# Operator sets that onnxruntime 1.20 and later run; fixed, so that an upgrade of the converter does not change the file.
OPSETS = {"": 18, "ai.onnx.ml": 3}


NOTHING: Final = Around()


class Unfit(PenstockError):
    """These rows, or this learner, give no model that can be served; the run record says why."""


@dataclass(frozen=True)
class Fitted:
    """A model as bytes, with the bins of its training inputs and what is known of it."""

    onnx: bytes
    reference: dict[str, Numbers]
    """Its training inputs, by name."""
    scores: Numbers
    """Its answers to a sample of them."""
    metrics: dict[str, float]
    empty: tuple[str, ...] = ()
    """Inputs without any value, which the model does not use."""
    classes: tuple[str, ...] = ()
    """Those that the rows have, in the order of its columns."""


def fit(
    learner: BatchLearner,
    name: str,
    inputs: Sequence[str],
    X: Matrix,  # noqa: N803
    label: npt.NDArray[Any],
    threads: int = 1,
    seed: int = 0,
    declared: Label | None = None,
    around: Around = NOTHING,
) -> Fitted:
    """Fit on `X` float32 (rows, inputs) and `label` (rows,): bool, or as `declared` says float64, or the int64 number of a class.
    The learner is a regressor for numbers, else a classifier. It sees what the functions `around` it make of `X`, whose rows they
    all take; metrics are of what they make of its answers. Raises Unfit.

    An input that has no value in any row says nothing, and scikit-learn's histogram boosting fails on one. The learner is shown a
    constant in its place, from which nothing can be learned; the model has the input still, and makes no use of it.
    `seed` fixes what the project leaves to chance: every open `random_state`, also inside pipelines.
    One thread by default: histogram boosting on two ran five times slower beside other work on two cores.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if len(label) < LEAST:
        raise Unfit(f"{len(label)} rows; at least {LEAST} are needed")
    task = declared.task if declared else "binary"
    if (label == label[0]).all():
        only = declared.classes[int(label[0])] if declared and task == "multiclass" else label[0].item()
        raise Unfit(f"all {len(label)} labels are {only}")
    if not hasattr(learner, said := "predict" if task == "regression" else "predict_proba"):
        kind = "a regressor: the label is a number" if task == "regression" else "a classifier that gives probabilities"
        raise Unfit(f"{type(learner).__name__} has no {said}; return {kind}")
    if task == "regression" and hasattr(learner, "predict_proba"):
        raise Unfit(f"{type(learner).__name__} is a classifier, and the label is a number; return a regressor")
    _seed(learner, seed)
    seen, columns = around.seen(inputs, X)[0], around.columns(inputs)
    empty = np.all(np.isnan(seen), axis=0)
    if empty.all():
        raise Unfit(f"none of the {len(columns)} inputs has a value in any of {len(label)} rows")
    shown = np.where(empty, np.float32(0), seen) if empty.any() else seen
    with threadpool_limits(threads):
        try:
            learner.fit(shown, label)
            onnx = _converted(learner, name, len(columns), task)
            sample = np.unique(np.linspace(0, len(label) - 1, SAMPLE).astype(int))
            own = np.asarray(getattr(learner, said)(seen[sample]), np.float64)
            own = own[:, 1] if task == "binary" else own
        except Exception as error:  # the learner is the user's code: whatever it raises, the run says it
            raise Unfit(f"{type(error).__name__}: {error}") from error
    few = slice(None, None, 10)
    difference = np.abs(answering(onnx, task)(seen[sample[few]]) - own[few])
    difference = difference.max(axis=1) if task == "multiclass" else difference
    most = TOLERANCE * (float(label.std()) if task == "regression" else 1.0)
    share = float((difference > most).mean())
    if share > EXCEPTIONS:
        raise Unfit(
            f"the ONNX model differs from the learner by more than {most:g} on {share:.2%} of rows; at most {EXCEPTIONS:.1%} may"
        )
    own, why = around.said(inputs, X[sample], own)
    if why:
        raise Unfit(f"{len(why)} of {len(sample)} answers to training rows are none: {next(iter(why.values()))}")
    numbers = np.unique(label).astype(int).tolist() if task == "multiclass" else []
    return Fitted(
        onnx,
        {n: Numbers.of(X[:, i], FEW_BINS) for i, n in enumerate(inputs)},
        Numbers.of(own.max(axis=1) if task == "multiclass" else own, FEW_BINS),
        {
            "rows": float(len(label)),
            **_measured(task, label, label[sample], own, numbers),
            "parity_max": float(difference.max()),
            "parity_rows": float(len(difference)),
        },
        tuple(name for name, gone in zip(columns, empty.tolist(), strict=True) if gone),
        tuple(declared.classes[at] for at in numbers) if declared else (),
    )


def _measured(
    task: str, label: npt.NDArray[Any], some: npt.NDArray[Any], own: Floats, numbers: Sequence[int]
) -> dict[str, float]:
    """Of the answers to `some` of the training rows; `numbers` are the classes of their columns."""
    if task == "regression":
        error = own - some
        found = {"label_mean": label.mean(), "label_std": label.std(), "train_mae": np.abs(error).mean()}
        return {name: float(value) for name, value in {**found, "train_rmse": np.sqrt((error**2).mean())}.items()}
    if task == "multiclass":
        at = np.searchsorted(numbers, some)
        loss = -np.log(np.clip(own[np.arange(len(own)), at], CLIP, 1 - CLIP)).mean()
        right = (own.argmax(axis=1) == at).mean()
        return {"classes": float(len(numbers)), "train_log_loss": float(loss), "train_accuracy": float(right)}
    return {
        "positives": float(label.sum()),
        "train_log_loss": log_loss(some, own),
        "train_auc": auc(some, own) or 0.5,
    }


def _seed(learner: Any, seed: int) -> None:
    if hasattr(learner, "get_params"):
        settings = learner.get_params(deep=True)
        open_ = [n for n, v in settings.items() if n.rpartition("__")[2] == "random_state" and v is None]
        learner.set_params(**dict.fromkeys(open_, seed))


def _converted(learner: Any, name: str, width: int, task: str = "binary") -> bytes:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    found = convert_sklearn(
        learner,
        name=name,
        initial_types=[("X", FloatTensorType([None, width]))],
        options=None if task == "regression" else {id(learner): {"zipmap": False}},
        target_opset=OPSETS,
    )
    return bytes(found.SerializeToString())


def answering(onnx: bytes, task: str = "binary") -> Callable[[Matrix], Floats]:
    """The model, open: float32 (rows, inputs) -> float64 (rows,), the probability of True, or the number; of classes (rows,
    classes)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    if task == "regression":
        return lambda rows: np.asarray(session.run(["variable"], {"X": rows})[0][:, 0], np.float64)
    if task == "multiclass":
        return lambda rows: np.asarray(session.run(["probabilities"], {"X": rows})[0], np.float64)
    return lambda rows: np.asarray(session.run(["probabilities"], {"X": rows})[0][:, 1], np.float64)
