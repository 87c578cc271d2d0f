"""penstock explain: what made an answer, from its record, its version and the version's explainer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from tests.rides import DAY, START, a_model

import penstock as ps
from penstock.artefact import Artefacts
from penstock.contributions.explainer import dumped
from penstock.inputs import squashed
from penstock.log import Send
from penstock.log.memory import MemoryLog
from penstock.records import Artefact, Candidate, Decision, Prediction
from penstock.services.trainer.explainer import explainer
from penstock.services.trainer.fitting import answering, fit
from penstock.snapshot import dump_river
from penstock.topics import Topics

if TYPE_CHECKING:
    from tests.services.cli.conftest import Cli

INPUTS = ["Ride.distance", "Ride.load"]
DRAWN = np.random.default_rng(5)
ROWS = DRAWN.normal(size=(400, 2)).astype(np.float32)
LABEL = ROWS[:, 0] + ROWS[:, 1] ** 2 > 1
TOPICS = Topics(ps.Project("rides-late", [a_model()]), 4)


def version(name: str, artefact: Artefact, explaining: Artefact | None = None) -> Decision:
    found = Candidate(
        id=name, model="late", version=name, kind="full", at=START, artefact=artefact, inputs=INPUTS, weights={}, edges={},
        reference={}, metrics={}, run="r", fingerprint="f", explainer=explaining,
    )  # fmt: skip
    return Decision(
        id=f"late/{name}", model="late", kind="champion", version=name, at=START, actor="policy", reason="", share=0.0,
        expected="", evidence={}, candidate=found,
    )  # fmt: skip


def answer(name: str, version: str, digest: str, score: float, scores: dict[str, float], **more: Any) -> Prediction:
    inputs = {"Ride.distance": 1.5, "Ride.load": -2.0} | more.pop("inputs", {})
    weights = more.pop("weights", {version: 1.0})
    return Prediction(
        id=name, key="cab", model="late", time=START + DAY, inputs=msgspec.Raw(msgspec.json.encode(inputs)), score=score,
        scores=scores, weights=weights, version=version, variant="champion", digest=digest, bucket=7, latency=0.0,
    )  # fmt: skip


@pytest.fixture
def street(here: Path, log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three versions: boosted trees, a River snapshot, and one from before there were explanations."""
    from river import linear_model, preprocessing
    from sklearn.ensemble import HistGradientBoostingClassifier

    artefacts = Artefacts(here / ".penstock" / "models")
    onnx = fit(HistGradientBoostingClassifier(max_iter=10), "late", INPUTS, ROWS, LABEL).onnx
    score = answering(onnx)
    trees = artefacts.put(onnx, "onnx")
    beside = artefacts.put(dumped(explainer(onnx, score, ROWS)), "npz")
    river = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    for x, y in zip(squashed(ROWS).tolist(), LABEL.tolist(), strict=True):
        river.learn_one(dict(zip(INPUTS, x, strict=True)), y)
    online = artefacts.put(dump_river(river), "river")
    row = np.array([[1.5, -2.0]], np.float32)
    p = float(score(row)[0])
    q = river.predict_proba_one(dict(zip(INPUTS, squashed(row).tolist()[0], strict=True)))[True]
    decisions = [version("v1", trees, beside), version("v0", trees), version("online-1", online)]
    mixed = {"weights": {"v1": 0.75, "online-1": 0.25}}
    answers = [
        answer("r1", "v1", trees.sha256, 0.75 * p + 0.25 * q, {"v1": p, "online-1": q}, **mixed),
        answer("r2", "v0", trees.sha256, p, {"v0": p}),
        answer("r3", "v1", trees.sha256, 0.9, {"v1": 0.9}, inputs={"Ride.load": None}),
        answer("r4", "v1", "0" * 64, p, {"v1": p}),
        answer("r5", "none", "", 0.5, {}, weights={}),
        answer("r6", "v7", "0" * 64, p, {"v7": p}),
    ]

    async def publish() -> None:
        await log.create(TOPICS.all())
        await log.send([Send(TOPICS.models, f"late/{d.version}".encode(), msgspec.json.encode(d)) for d in decisions])
        topic = TOPICS.predictions("late")
        await log.send([Send(topic, a.id.encode(), msgspec.json.encode(a)) for a in answers])

    asyncio.run(publish())
    (here / "street.py").write_text("from tests.services.cli.test_explain import TOPICS\n\nproject = TOPICS.project\n")
    monkeypatch.setenv("PENSTOCK_PROJECT", "street.py")
    return here


def test_each_version_that_counted_is_taken_apart_and_adds_up(cli: Cli, street: Path) -> None:
    (found,) = cli.json("explain", "r1")["answers"]
    assert found["unexplained"] == {}
    trees, online = found["explanations"]
    assert [(each["version"], each["kind"], each["scale"]) for each in (trees, online)] == [
        ("v1", "trees", "log-odds"), ("online-1", "linear", "log-odds"),
    ]  # fmt: skip
    scores = found["prediction"]["scores"]
    for each in (trees, online):
        parts = each["contributions"]
        assert each["base"] + sum(part["contribution"] for part in parts) == pytest.approx(each["total"], abs=1e-9)
        assert each["probability"] == pytest.approx(scores[each["version"]], abs=1e-6)
        assert {part["input"]: part["value"] for part in parts} == {"Ride.distance": 1.5, "Ride.load": -2.0}
        sizes = [abs(part["contribution"]) for part in parts]
        assert sizes == sorted(sizes, reverse=True)
    said = cli("explain", "r1").stdout
    assert "v1 (trees, exact), in log-odds:" in said
    assert "Ride.load" in said and "together" in said and "v1 x 0.75, online-1 x 0.25" in said


def test_a_missing_input_is_shown_as_missing_and_another_answer_than_given_is_told(cli: Cli, street: Path) -> None:
    said = cli("explain", "r3").stdout
    assert "missing" in said
    assert "it had answered 0.900000: what explains it now is not what answered then" in said


@pytest.mark.parametrize(
    ("name", "which", "why"),
    [
        ("r2", "v0", "version v0 of late was fitted without an explainer"),
        ("r4", "v1", "the file that answered was 000000000000, not "),
        ("r5", "none", "no version was in charge yet: it is no model's answer"),
        ("r6", "v7", "the models topic no longer has its registration"),
    ],
)
def test_what_cannot_be_explained_says_why(cli: Cli, street: Path, name: str, which: str, why: str) -> None:
    (found,) = cli.json("explain", name)["answers"]
    assert found["explanations"] == []
    assert found["unexplained"][which].startswith(why)
    assert f"{which} is not explained: {why}" in cli("explain", name).stdout


def test_an_explainer_that_is_not_what_was_registered_is_not_opened(cli: Cli, street: Path) -> None:
    for path in (street / ".penstock" / "models").rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    (found,) = cli.json("explain", "r3")["answers"]
    assert "as registered: not opened" in found["unexplained"]["v1"]


def test_an_answer_that_nobody_gave_is_refused_in_words(cli: Cli, street: Path) -> None:
    said = cli("explain", "r9")
    assert said.exit_code == 1
    assert "no answer to 'r9' on the predictions topics of late, nor in tables" in said.stderr
    said = cli("explain", "r1", "--model", "lade")
    assert said.exit_code == 1
    assert "rides-late has no model lade" in said.stderr


def test_an_answer_that_has_left_the_topic_is_found_in_the_tables(cli: Cli, street: Path, log: MemoryLog) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    from penstock.log import Partition
    from penstock.offline.columns import columns_of

    async def held() -> list[bytes]:
        topic = TOPICS.predictions("late")
        reader = await log.reader({Partition(topic, n): 0 for n in range(4)})
        return [v for batch in await reader.read(100, 0) for v in batch.values if v is not None and b'"r1"' in v]

    (value,) = asyncio.run(held())
    aged = value.replace(b'"r1"', b'"r-old"')
    decoded = columns_of(TOPICS)[TOPICS.predictions("late")].decode([aged])
    table = pa.table({**decoded.columns, "partition": pa.array([0], pa.int32()), "offset": pa.array([0], pa.int64())})
    write_deltalake(str(street / ".penstock" / "tables" / TOPICS.predictions("late")), table)
    (found,) = cli.json("explain", "r-old")["answers"]
    (now,) = cli.json("explain", "r1")["answers"]
    assert found["explanations"] == now["explanations"]
