"""A compressed model is offered only where it is smaller and its answers stay within the bound; else the original, and the run
says why."""

from __future__ import annotations

import warnings
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn import metrics
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.unit.test_quality_measures import COLUMN

import penstock as ps
from penstock.compression import Compression
from penstock.errors import DefinitionError
from penstock.label import Label
from penstock.records import Compressed
from penstock.services.trainer.compression import compressed
from penstock.services.trainer.fitting import _converted, answering

DRAWN = np.random.default_rng(3)
ROWS = DRAWN.normal(size=(3000, 8)).astype(np.float32)
LABEL = (ROWS[:, 0] * ROWS[:, 1] + ROWS[:, 2] + 0.3 * DRAWN.normal(size=3000)) > 0


def onnx_of(learner: Any) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _converted(learner.fit(ROWS, LABEL), "late", 8)


@pytest.fixture(scope="module")
def network() -> bytes:
    return onnx_of(make_pipeline(StandardScaler(), MLPClassifier((200, 100), max_iter=8, random_state=0)))


@pytest.mark.parametrize(
    ("wanted", "share"),
    [(ps.int8(within=0.01), 0.5), (ps.int8(within=0.01, dynamic=True), 0.5), (ps.float16(), 0.75)],
    ids=["int8", "int8 dynamic", "float16"],
)
def test_a_network_gets_smaller_and_answers_within_the_bound(network: bytes, wanted: Compression, share: float) -> None:
    small, said = compressed(network, wanted, ROWS, LABEL, timed=True)
    assert said.served and said.after is not None and len(small) == said.after.size < share * said.before.size
    assert said.before.log_loss is not None and said.after.log_loss is not None
    assert said.after.log_loss <= said.before.log_loss + wanted.within
    assert said.after.auc is not None and said.after.auc > 0.9
    assert said.before.latency is not None and said.before.latency > 0
    assert said.rows == 2400  # every fifth was for calibration
    assert np.abs(answering(small)(ROWS) - answering(network)(ROWS)).mean() < 0.05
    assert msgspec.json.decode(msgspec.json.encode(said), type=Compressed) == said


def test_compressing_again_gives_the_same_bytes_and_the_same_record(network: bytes) -> None:
    first, again = (compressed(network, ps.int8(within=0.01), ROWS, LABEL) for _ in range(2))
    assert first == again
    assert first[1].before.latency is None


def test_a_loss_beyond_the_bound_keeps_the_original(network: bytes) -> None:
    kept, said = compressed(network, ps.int8(within=0.0, dynamic=True), ROWS, LABEL)
    assert (kept, said.served) == (network, False)
    assert "against the original's; at most +0 was allowed" in said.reason
    assert said.after is not None and said.after.size < said.before.size


@pytest.mark.parametrize("method", ["int8", "int8_dynamic", "float16"])
@pytest.mark.parametrize(
    ("learner", "kind"),
    [
        (HistGradientBoostingClassifier(max_iter=5), "TreeEnsembleClassifier"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "Scaler, LinearClassifier"),
    ],
    ids=["trees", "linear"],
)
def test_trees_and_linear_models_have_nothing_to_compress(learner: Any, kind: str, method: str) -> None:
    onnx = onnx_of(learner)
    kept, said = compressed(onnx, Compression(method, 0.1), ROWS, LABEL)
    assert kept == onnx
    assert (said.served, said.after) == (False, None)
    assert said.reason == f"it has no matrices to compress: its numbers lie in nodes ({kind}) that no method reaches"


def test_what_gets_no_smaller_is_not_offered() -> None:
    tiny = onnx_of(make_pipeline(StandardScaler(), MLPClassifier((2,), max_iter=20, random_state=0)))
    kept, said = compressed(tiny, ps.int8(within=0.5), ROWS, LABEL)
    assert kept == tiny
    assert said.reason.startswith("it is not smaller")


def test_a_quantiser_that_fails_leaves_the_original_and_its_words(network: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.quantization.quantize_static", lambda *_, **__: 1 / 0)
    kept, said = compressed(network, ps.int8(), ROWS, LABEL)
    assert kept == network
    assert said.reason == "int8 does not work for it: ZeroDivisionError: division by zero"


def test_wrong_declarations_are_told() -> None:
    with pytest.raises(DefinitionError, match="within=-1"):
        ps.int8(within=-1)
    with pytest.raises(DefinitionError, match="compress= and no batch="):
        ps.Learner(online=object(), compress=ps.int8())  # type: ignore[arg-type]


# --- numbers and classes ----------------------------------------------------------------------------------------------

NUMBER = (ROWS[:, 0] * ROWS[:, 1] + ROWS[:, 2] + 0.3 * DRAWN.normal(size=3000)).astype(np.float64) * 40
CLASSES = np.array([0, 2, 3])[np.digitize(NUMBER, [-20, 20])]
NUMBERS = {None: Label(COLUMN, 1, None), 0.9: Label(COLUMN, 1, None, quantile=0.9)}
NAMED = Label(COLUMN, 1, None, None, ("low", "never", "middle", "high"))
WIDTHS: dict[str, Any] = {"hidden_layer_sizes": (200, 100), "max_iter": 8, "random_state": 0}


@pytest.fixture(scope="module")
def regressor() -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _converted(make_pipeline(StandardScaler(), MLPRegressor(**WIDTHS)).fit(ROWS, NUMBER), "much", 8, "regression")


@pytest.fixture(scope="module")
def namer() -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _converted(make_pipeline(StandardScaler(), MLPClassifier(**WIDTHS)).fit(ROWS, CLASSES), "which", 8, "multiclass")


@pytest.mark.parametrize(
    "wanted", [ps.int8(within=0.02), ps.int8(within=0.02, dynamic=True), ps.float16()], ids=lambda w: w.method
)
@pytest.mark.parametrize("quantile", [None, 0.9], ids=["mean", "quantile"])
def test_a_network_of_numbers_is_judged_by_the_share_of_the_loss_of_a_constant(
    regressor: bytes, wanted: Compression, quantile: float | None
) -> None:
    label = NUMBERS[quantile]
    small, said = compressed(regressor, wanted, ROWS, NUMBER, declared=label)
    assert said.served and said.after is not None and len(small) < 0.75 * said.before.size, said.reason
    judged = np.array([at for at in range(3000) if at % 5])
    truth, answer = NUMBER[judged], answering(regressor, "regression")(ROWS[judged])
    if quantile is None:
        assert said.loss == "squared error"
        assert said.before.loss == pytest.approx(metrics.mean_squared_error(truth, answer))
        assert said.prior == pytest.approx(truth.var())
        assert said.before.measures["r2"] - said.after.measures["r2"] <= wanted.within
        assert {"mae", "rmse"} <= said.after.measures.keys()
    else:
        assert said.loss == "pinball loss"
        assert said.before.loss == pytest.approx(metrics.mean_pinball_loss(truth, answer, alpha=0.9))
        assert said.before.measures["coverage"] == np.mean(truth <= answer)
    assert (said.before.log_loss, said.before.auc) == (None, None)
    assert msgspec.json.decode(msgspec.json.encode(said), type=Compressed) == said


@pytest.mark.parametrize(
    "wanted", [ps.int8(within=0.02), ps.int8(within=0.02, dynamic=True), ps.float16()], ids=lambda w: w.method
)
def test_a_network_of_classes_is_judged_by_its_log_loss(namer: bytes, wanted: Compression) -> None:
    small, said = compressed(namer, wanted, ROWS, CLASSES, declared=NAMED, classes=("low", "middle", "high"))
    assert said.served and said.after is not None and len(small) < 0.75 * said.before.size, said.reason
    judged = np.array([at for at in range(3000) if at % 5])
    answer = answering(namer, "multiclass")(ROWS[judged])
    shares = answer / answer.sum(axis=1, keepdims=True)  # float32 in the graph
    assert said.before.loss == said.before.log_loss == pytest.approx(metrics.log_loss(CLASSES[judged], shares), abs=1e-5)
    assert said.before.measures["accuracy"] == np.mean(np.array([0, 2, 3])[answer.argmax(axis=1)] == CLASSES[judged])
    assert said.after.measures["accuracy"] > 0.8
    assert said.prior is None


def test_a_loss_of_numbers_or_classes_beyond_the_bound_keeps_the_original(regressor: bytes, namer: bytes) -> None:
    kept, said = compressed(regressor, ps.int8(within=1e-7, dynamic=True), ROWS, NUMBER, declared=NUMBERS[None])
    assert (kept, said.served) == (regressor, False)
    assert said.reason.startswith("its squared error is +") and said.prior is not None
    assert said.reason.endswith(f"at most {1e-7 * said.prior:+g} was allowed")
    kept, said = compressed(
        namer, ps.int8(within=0.0, dynamic=True), ROWS, CLASSES, declared=NAMED, classes=("low", "middle", "high")
    )
    assert (kept, said.served) == (namer, False)
    assert said.reason.startswith("its log loss is +")
