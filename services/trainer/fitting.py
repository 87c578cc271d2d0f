"""Fitting: a window of rows becomes an ONNX model whose answers are proven to be the learner's, and the bins of its
inputs.

Nothing is held out: a candidate is judged on live traffic before it may answer (holding out the newest rows costs 0.9
to 1.3 points of accuracy under drift; see the facts on monitoring and learning). The metrics here are of the training
rows and say so by name. Same rows, same seed, same versions: same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.errors import PenstockError
from penstock.inputs import Floats, Matrix
from penstock.model import BatchLearner
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


def fit(
    learner: BatchLearner,
    name: str,
    inputs: Sequence[str],
    X: Matrix,  # noqa: N803
    label: npt.NDArray[np.bool_],
    threads: int = 1,
    seed: int = 0,
) -> Fitted:
    """Fit on `X` float32 (rows, inputs) and `label` (rows,). Raises Unfit.

    An input that has no value in any row says nothing, and scikit-learn's histogram boosting fails on one. The learner is shown a
    constant in its place, from which nothing can be learned; the model has the input still, and makes no use of it.
    `seed` fixes what the project leaves to chance: every open `random_state`, also inside pipelines.
    One thread by default: histogram boosting on two ran five times slower beside other work on two cores.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if len(label) < LEAST:
        raise Unfit(f"{len(label)} rows; at least {LEAST} are needed")
    if label.all() or not label.any():
        raise Unfit(f"all {len(label)} labels are {bool(label[0])}")
    _seed(learner, seed)
    empty = np.all(np.isnan(X), axis=0)
    if empty.all():
        raise Unfit(f"none of the {len(inputs)} inputs has a value in any of {len(label)} rows")
    shown = np.where(empty, np.float32(0), X) if empty.any() else X
    with threadpool_limits(threads):
        try:
            learner.fit(shown, label)
            onnx = _converted(learner, name, len(inputs))
            sample = np.unique(np.linspace(0, len(label) - 1, SAMPLE).astype(int))
            own = np.asarray(learner.predict_proba(X[sample]))[:, 1].astype(np.float64)
        except Exception as error:  # the learner is the user's code: whatever it raises, the run says it
            raise Unfit(f"{type(error).__name__}: {error}") from error
    few = slice(None, None, 10)
    difference = np.abs(answering(onnx)(X[sample[few]]) - own[few])
    share = float((difference > TOLERANCE).mean())
    if share > EXCEPTIONS:
        raise Unfit(
            f"the ONNX model differs from the learner by more than {TOLERANCE:g} on {share:.2%} of rows; "
            f"at most {EXCEPTIONS:.1%} may"
        )
    return Fitted(
        onnx,
        {n: Numbers.of(X[:, i], FEW_BINS) for i, n in enumerate(inputs)},
        Numbers.of(own, FEW_BINS),
        {
            "rows": float(len(label)),
            "positives": float(label.sum()),
            "train_log_loss": log_loss(label[sample], own),
            "train_auc": auc(label[sample], own) or 0.5,
            "parity_max": float(difference.max()),
            "parity_rows": float(len(difference)),
        },
        tuple(name for name, gone in zip(inputs, empty.tolist(), strict=True) if gone),
    )


def _seed(learner: Any, seed: int) -> None:
    if hasattr(learner, "get_params"):
        settings = learner.get_params(deep=True)
        open_ = [n for n, v in settings.items() if n.rpartition("__")[2] == "random_state" and v is None]
        learner.set_params(**dict.fromkeys(open_, seed))


def _converted(learner: Any, name: str, width: int) -> bytes:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    found = convert_sklearn(
        learner,
        name=name,
        initial_types=[("X", FloatTensorType([None, width]))],
        options={id(learner): {"zipmap": False}},
        target_opset=OPSETS,
    )
    return bytes(found.SerializeToString())


def answering(onnx: bytes) -> Callable[[Matrix], Floats]:
    """The model, open: float32 (rows, inputs) -> float64 (rows,), the probability of True."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    return lambda rows: np.asarray(session.run(["probabilities"], {"X": rows})[0][:, 1], np.float64)
