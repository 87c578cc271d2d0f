"""The trainer on the log in memory: real learners on outcomes with a known relation."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests import rides
from tests.rides import DAY, HOUR, START, a_model, alarm, command, window

import penstock as ps
from penstock.artefact import Artefacts
from penstock.event import to_micros
from penstock.log import Partition, Send
from penstock.log.memory import MemoryLog
from penstock.records import Alarm, Candidate, Outcome, Run
from penstock.runtime.control import ControlLoop
from penstock.services.trainer.service import Trainer
from penstock.snapshot import load_river
from penstock.statistics.hours import Hours, hours_of
from penstock.statistics.reference import Numbers
from penstock.statistics.segmented import Segmented
from penstock.topics import Topics

PARTITIONS = 3


def both() -> ps.Learner:
    from river.linear_model import LogisticRegression
    from river.preprocessing import StandardScaler
    from sklearn.ensemble import HistGradientBoostingClassifier

    batch = HistGradientBoostingClassifier(max_iter=10, max_leaf_nodes=8)
    return ps.Learner(batch=batch, online=StandardScaler() | LogisticRegression(), half_life=200)


def topics(build: Callable[[], ps.Learner] = both, retrain: Any = None) -> Topics:
    default = ps.every("7d", on="5d", first="3d") | ps.on_alarm("2d") | ps.incremental("1d")
    return rides.topics(a_model(build, retrain=retrain or default), PARTITIONS)


def outcomes(days: int, a_day: int = 120, seed: int = 1) -> list[Outcome]:
    """Rides late when far and heavy; each label known some hours later, in the order in which they are known."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(days * a_day):
        at = START + number * DAY / a_day
        distance, load = float(rng.normal()), float(rng.exponential())
        label = bool(distance + load > 1 + 0.3 * rng.normal())
        sharp = 1 / (1 + math.exp(-3 * (distance + load - 1)))
        inputs = {"Ride.distance": distance, "Ride.load": None if rng.random() < 0.05 else load, "Ride.other": 1.0}
        found.append(
            Outcome(
                id=f"r{number:05}", key="c", model="late", time=at, labelled=at + float(rng.uniform(1, 20)) * HOUR,
                label=label, answered=True, inputs=msgspec.Raw(msgspec.json.encode(inputs)), score=sharp,
                scores={"v1": sharp, "online-1": 0.5}, version="v1", variant="champion",
            )
        )  # fmt: skip
    return sorted(found, key=lambda o: o.labelled)


async def read(log: MemoryLog, topic: str, kind: type[Any]) -> list[Any]:
    reader = await log.reader({Partition(topic, 0): 0})
    return [msgspec.json.decode(v, type=kind) for b in await reader.read(100_000, 0) for v in b.values if v is not None]


class Stage:
    """A log with outcomes and closed windows, and the trainer before it."""

    def __init__(self, folder: Path, t: Topics | None = None, **how: Any) -> None:
        self.t, self.log, self.artefacts = t or topics(), MemoryLog(), Artefacts(folder)
        self.how = how
        self.trainer = Trainer(self.t, self.log, self.artefacts, **how)
        self.loop = ControlLoop(self.trainer, self.log, "trainer")

    def restart(self) -> None:
        self.trainer = Trainer(self.t, self.log, self.artefacts, **self.how)
        self.loop = ControlLoop(self.trainer, self.log, "trainer")

    async def day(
        self, day: int, told: list[Outcome], ahead: float = 0.0, order: int = 1, alarms: tuple[Alarm, ...] = ()
    ) -> None:
        """Outcomes known during the day (and some that are known only later), then the window's end, then a turn."""
        low, high = START + (day - 1 + ahead * (day > 1)) * DAY, START + (day + ahead) * DAY
        new = [o for o in told if low <= o.labelled < high][::order]
        topic = self.t.outcomes("late")
        await self.log.send([Send(topic, o.id.encode(), msgspec.json.encode(o)) for o in new])
        closed = msgspec.structs.replace(window(day), alarms=[a.id for a in alarms])
        await self.log.send([Send(self.t.statistics("late"), b"late", msgspec.json.encode(closed))])
        await self.loop.turn()

    async def play(self, days: int, told: list[Outcome], restarts: bool = False, **how: Any) -> None:
        await self.log.create(self.t.all())
        for day in range(1, days + 1):
            if restarts:
                self.restart()
            await self.day(day, told, **how)

    async def candidates(self) -> list[Candidate]:
        return await read(self.log, self.t.candidates, Candidate)

    async def runs(self) -> list[Run]:
        return await read(self.log, self.t.runs, Run)


def played(stage: Stage, days: int, told: list[Outcome], **how: Any) -> tuple[list[Candidate], list[Run]]:
    async def go() -> tuple[list[Candidate], list[Run]]:
        await stage.play(days, told, **how)
        return await stage.candidates(), await stage.runs()

    return asyncio.run(go())


def test_versions_are_numbered_by_kind_and_runs_say_why(tmp_path: Path) -> None:
    candidates, runs = played(Stage(tmp_path), 4, outcomes(5))
    assert [(c.version, c.kind, c.at) for c in candidates] == [
        ("online-1", "incremental", START + 1 * DAY),
        ("online-2", "incremental", START + 2 * DAY),
        ("v1", "full", START + 3 * DAY),
        ("online-3", "incremental", START + 3 * DAY),
        ("online-4", "incremental", START + 4 * DAY),
    ]
    assert [r.cause for r in runs][2:4] == ["schedule.0:s-3", "increment:s-3"]
    assert [c.run for c in candidates] == [r.id for r in runs]


def test_a_full_fit_learns_what_was_known_and_its_run_says_so(tmp_path: Path) -> None:
    told = outcomes(5)
    stage = Stage(tmp_path)
    candidates, runs = played(stage, 4, told)
    candidate, run = candidates[2], runs[2]
    known = [o for o in told if o.labelled < START + 3 * DAY]
    assert run.data["rows"] == len(known) == run.metrics["rows"]
    assert sum(run.data["positions"].values()) <= len(told)
    assert set(run.data["positions"]) == {"0", "1", "2"}
    assert run.data["from"] == "2013-01-01T00:00:00Z"
    assert (run.seed, run.code, run.seconds) == (0, stage.t.project.fingerprint, 0.0)
    assert run.parameters["batch"]["max_iter"] == 10
    assert run.environment.keys() >= {"python", "penstock", "numpy", "scikit-learn", "skl2onnx", "onnxruntime", "river"}
    assert run.metrics["train_auc"] > 0.9
    assert run.metrics["parity_max"] < 1e-5
    assert candidate.inputs == ["Ride.distance", "Ride.load"]
    for name in candidate.inputs:
        assert len(candidate.reference[name]) == len(candidate.edges[name]) + 2
        assert sum(candidate.reference[name]) == len(known)
    assert candidate.reference["Ride.load"][-1] > 0


def test_the_artefact_answers_as_the_learner_and_inference_can_open_both(tmp_path: Path) -> None:
    from penstock.scoring.scorers import OnnxScorer, RiverScorer

    stage = Stage(tmp_path)
    candidates, _ = played(stage, 3, outcomes(5))
    matrix = np.array([[-3.0, 0.1], [3.0, 2.0], [0.0, np.nan]], np.float32)
    for candidate in candidates[2:]:
        data = stage.artefacts.get(candidate.artefact)
        if candidate.kind == "full":
            scores = OnnxScorer(data, 2).score(matrix)
        else:
            scores = RiverScorer(load_river(data), candidate.inputs).score(matrix)
        assert scores[0] < 0.3
        assert scores[1] > 0.7


def test_a_full_fit_offers_what_explains_its_answers(tmp_path: Path) -> None:
    from penstock.contributions.version import explained, explainer_of
    from penstock.services.inference.sessions import OnnxScorer

    stage = Stage(tmp_path)
    candidates, runs = played(stage, 3, outcomes(5))
    snapshot, full = candidates[0], candidates[2]
    assert (snapshot.explainer, runs[2].data["explained"]) == (None, {"kind": "trees", "scale": "log-odds"})
    assert full.explainer is not None and full.explainer.format == "npz"
    row = [3.0, None]
    (score,) = OnnxScorer(stage.artefacts.get(full.artefact), 2).score(np.array([[3.0, np.nan]], np.float32))
    said = explained(explainer_of(stage.artefacts, full), full.version, full.inputs, row)
    assert said.probability == pytest.approx(score, abs=1e-6)
    assert said.contributions[0].input == "Ride.distance"
    assert explainer_of(stage.artefacts, snapshot).kind == "linear"


def test_a_full_fit_offers_its_reference_by_level_of_the_segments_however_it_was_read(tmp_path: Path) -> None:
    far = ps.segment(rides.Ride.distance, edges=(0.0,))
    told = [
        msgspec.structs.replace(o, segments={far.name: far.level(msgspec.json.decode(o.inputs)["Ride.distance"])})
        for o in outcomes(6)
    ]
    model = a_model(lambda: ps.Learner(batch=both().batch), retrain=ps.every("7d", first="5d"), segments=[far])
    stages = [Stage(tmp_path / name, rides.topics(model, partitions)) for name, partitions in (("few", 1), ("many", 8))]
    (few,), (many,) = (played(stage, 5, told)[0] for stage in stages)
    assert few.segments is not None and few.segments == many.segments
    found = Segmented.opened(stages[0].artefacts.get(few.segments))
    known = [o for o in told if o.labelled < START + 5 * DAY]
    for level in far.declared:
        mine = [o for o in known if o.segments and o.segments[far.name] == level]
        of = found.levels[far.name][level]
        assert of.rows == len(mine) and found.inputs == few.inputs
        loads = np.array([msgspec.json.decode(o.inputs)["Ride.load"] for o in mine], np.float32)
        column = Numbers(edges=tuple(few.edges["Ride.load"]), centre=0.0, unit=1.0, counts=())
        alone = hours_of(
            np.array([to_micros(o.time) for o in mine]),
            {"Ride.load": column.cells(loads)},
            {"Ride.load": column.missing_cell + 1},
        )
        hours = Hours.opened(of.hours)
        assert hours.group.tolist() == alone.group.tolist()
        assert hours.counts["Ride.load"].tolist() == alone.counts["Ride.load"].tolist()


def test_a_compression_that_is_declared_is_made_and_told_by_the_run(tmp_path: Path) -> None:
    def network() -> ps.Learner:
        from sklearn.impute import SimpleImputer
        from sklearn.neural_network import MLPClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        batch = make_pipeline(SimpleImputer(), StandardScaler(), MLPClassifier((300, 100), solver="lbfgs", max_iter=30, tol=0.1))
        return ps.Learner(batch=batch, compress=ps.int8(within=0.05))

    stage = Stage(tmp_path, topics(network, ps.every("7d", first="3d")))
    (candidate,), (run,) = played(stage, 3, outcomes(5))
    assert run.compression is not None and run.compression.after is not None
    assert run.compression.served, run.compression.reason
    assert candidate.artefact.size == run.compression.after.size < run.compression.before.size / 2
    assert run.data["explained"] == {"kind": "permutation", "scale": "probability"}
    trees = Stage(tmp_path, topics(lambda: ps.Learner(batch=both().batch, compress=ps.int8()), ps.every("7d", first="3d")))
    (whole,), (run,) = played(trees, 3, outcomes(5))
    kept = run.compression
    assert kept is not None and not kept.served and "no matrices to compress" in kept.reason
    assert whole.artefact.size == kept.before.size


def test_an_online_learner_of_another_kind_of_label_is_refused_in_words_and_stops_nothing(tmp_path: Path) -> None:
    def regressor() -> ps.Learner:
        from river.linear_model import LinearRegression

        return ps.Learner(online=LinearRegression())

    candidates, (run, *_) = played(Stage(tmp_path, topics(regressor, ps.incremental("1d"))), 2, outcomes(3))
    assert candidates == []
    assert run.data["refused"].startswith("LinearRegression gives no probabilities; online= of yes and no is LogisticRegression")


def test_weights_follow_the_scores_given_at_the_time(tmp_path: Path) -> None:
    candidates, _ = played(Stage(tmp_path), 3, outcomes(5))
    assert all(c.weights["batch"] > 0.9 for c in candidates)
    assert all(sum(c.weights.values()) == pytest.approx(1) for c in candidates)


def everything(stage: Stage, days: int = 11, **how: Any) -> tuple[list[Candidate], list[Run]]:
    return played(stage, days, outcomes(12), **how)


def without_positions(runs: list[Run]) -> list[Run]:
    return [msgspec.structs.replace(r, data={k: v for k, v in r.data.items() if k != "positions"}) for r in runs]


def test_the_same_log_gives_the_same_bytes_also_with_a_restart_before_every_window(tmp_path: Path) -> None:
    once = everything(Stage(tmp_path / "a"))
    assert [c.version for c in once[0] if c.kind == "full"] == ["v1", "v2"]
    assert everything(Stage(tmp_path / "b")) == once
    assert everything(Stage(tmp_path / "c"), restarts=True) == once


def test_reading_ahead_and_interleaving_change_nothing_but_positions(tmp_path: Path) -> None:
    once = everything(Stage(tmp_path / "a"))
    for how in ({"ahead": 0.7}, {"order": -1}):
        candidates, runs = everything(Stage(tmp_path / "b"), **how)
        assert candidates == once[0]
        assert without_positions(runs) == without_positions(once[1])


def drawing(**fixed: Any) -> Topics:
    """A learner that draws its inputs by chance."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    def chancy() -> ps.Learner:
        return ps.Learner(batch=HistGradientBoostingClassifier(max_iter=10, max_features=0.5, **fixed))

    return topics(chancy, ps.every("3d"))


def test_a_seed_decides_what_the_project_leaves_to_chance(tmp_path: Path) -> None:
    def fitted(seed: int, **fixed: Any) -> tuple[list[str], list[int]]:
        candidates, runs = played(Stage(tmp_path, drawing(**fixed), seed=seed), 3, outcomes(4))
        return [c.artefact.sha256 for c in candidates], [r.seed for r in runs]

    assert fitted(7) == fitted(7) != fitted(8)
    assert (fitted(7)[1], fitted(8)[1]) == ([7], [8])
    assert fitted(7, random_state=1)[0] == fitted(8, random_state=1)[0], "what the project fixes stays fixed"


def test_fits_in_a_thread_are_the_same(tmp_path: Path) -> None:
    once, threaded = everything(Stage(tmp_path / "a"), 4), everything(Stage(tmp_path / "b", background=True), 4)
    assert once == threaded


def test_repeats_and_a_lost_acknowledgement_fit_nothing_twice(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    async def go() -> tuple[int, int]:
        await stage.play(4, outcomes(5))
        before = len(await stage.runs())
        stage.restart()
        await stage.loop.turn()
        again = Send(stage.t.statistics("late"), b"late", msgspec.json.encode(window(3)))
        await stage.log.send([again, again])
        await stage.loop.turn()
        return before, len(await stage.runs())

    before, after = asyncio.run(go())
    assert before == after == 5


def test_a_crash_between_candidate_and_run_repeats_the_same_candidate(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    async def go() -> list[Candidate]:
        await stage.log.create(stage.t.all())
        whole = stage.log.send

        async def cut(records: Any) -> Any:
            runs = [r for r in records if r.topic == stage.t.runs]
            await whole([r for r in records if r.topic != stage.t.runs])
            if runs:
                raise ConnectionResetError("killed here")  # before the run was written
            return {}

        await stage.day(1, outcomes(2))
        stage.log.send = cut  # type: ignore[method-assign]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stage.day(2, outcomes(2)), 0.05)
        stage.log.send = whole  # type: ignore[method-assign]
        stage.restart()
        await stage.loop.turn()
        return await stage.candidates()

    found = asyncio.run(go())
    assert [c.version for c in found] == ["online-1", "online-2", "online-2"]
    assert found[1] == found[2]


def test_alarms_and_commands_start_full_fits(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    async def go() -> list[Run]:
        await stage.play(3, outcomes(6))
        await stage.log.send([Send(stage.t.alarms, b"late", msgspec.json.encode(alarm(4)))])
        await stage.day(4, outcomes(6))
        asked = command("retrain", name="please", day=5)
        await stage.log.send([Send(stage.t.commands, b"late", msgspec.json.encode(asked))])
        await stage.loop.turn()
        return [r for r in await stage.runs() if r.kind == "full"]

    runs = asyncio.run(go())
    assert [(r.cause, r.version) for r in runs] == [
        ("schedule.0:s-3", "v1"),
        ("alarm:a-drift-4", "v2"),
        ("command:please", "v3"),
    ]
    assert runs[2].at == START + 4 * DAY
    assert [r.data["window"] for r in runs] == ["5d", "all", "5d"], "a command fits as the schedule does"


def test_a_window_waits_for_the_alarms_that_it_names_so_that_either_topic_may_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.runtime.patience.RETRY_SECONDS", (0.0,))

    async def go(stage: Stage, late: bool) -> tuple[list[Candidate], list[Run]]:
        said = Send(stage.t.alarms, b"late", msgspec.json.encode(alarm(4)))
        await stage.play(3, outcomes(6))
        if late:
            waiting = asyncio.create_task(stage.day(4, outcomes(6), alarms=(alarm(4),)))
            for _ in range(50):
                await asyncio.sleep(0)
            assert not waiting.done()
            await stage.log.send([said])
            await waiting
        else:
            await stage.log.send([said])
            await stage.day(4, outcomes(6), alarms=(alarm(4),))
        await stage.day(5, outcomes(6))
        return await stage.candidates(), await stage.runs()

    first, then = (asyncio.run(go(Stage(tmp_path / str(late)), late)) for late in (False, True))
    assert first == then
    assert [r.at for r in first[1] if r.cause == "alarm:a-drift-4"] == [START + 4 * DAY]


def test_an_alarm_that_cannot_be_read_is_dead_lettered_and_the_windows_go_on(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    async def go() -> int:
        await stage.log.create(stage.t.all())
        await stage.log.send([Send(stage.t.alarms, b"late", b"{}")])
        await stage.day(1, outcomes(2))
        assert [c.version for c in await stage.candidates()] == ["online-1"]
        dead = stage.t.dead_letters(stage.t.alarms)
        return (await stage.log.ends([dead]))[Partition(dead, 0)]

    assert asyncio.run(go()) == 1


def test_what_cannot_be_fitted_is_a_run_that_says_why(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    one_sided = [msgspec.structs.replace(o, label=True) for o in outcomes(4)]
    candidates, runs = played(stage, 3, one_sided)
    assert [c.kind for c in candidates] == ["incremental"] * 3
    (full,) = [r for r in runs if r.kind == "full"]
    assert "labels are True" in full.data["refused"]
    assert full.version == ""


def test_an_input_without_any_value_does_not_cost_the_fit_and_the_run_names_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    hollow = [
        msgspec.structs.replace(o, inputs=msgspec.Raw(msgspec.json.encode({**msgspec.json.decode(o.inputs), "Ride.load": None})))
        for o in outcomes(4)
    ]
    candidates, runs = played(stage, 3, hollow)
    assert "full" in [c.kind for c in candidates]
    assert {str(r.data.get("inputs_without_values")) for r in runs if r.kind == "full"} == {"['Ride.load']"}


def test_a_learner_that_raises_does_not_stop_the_trainer(tmp_path: Path) -> None:
    class Broken:
        def fit(self, X: Any, y: Any) -> Any:  # noqa: N803
            raise ZeroDivisionError("by zero")

        def predict(self, X: Any) -> Any: ...  # noqa: N803

        def predict_proba(self, X: Any) -> Any: ...  # noqa: N803

    stage = Stage(tmp_path, topics(lambda: ps.Learner(batch=Broken()), ps.every("1d")))
    candidates, runs = played(stage, 3, outcomes(4, a_day=400))
    assert candidates == []
    assert [r.data["refused"] for r in runs] == ["ZeroDivisionError: by zero"] * 3


def test_an_outcome_that_cannot_be_read_is_dead_lettered_and_the_fit_goes_on(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    async def go() -> tuple[list[Candidate], int]:
        await stage.log.create(stage.t.all())
        await stage.log.send([Send(stage.t.outcomes("late"), b"x", b"{}", (), 1)])
        for day in range(1, 4):
            await stage.day(day, outcomes(4))
            stage.restart()
        dead = stage.t.dead_letters(stage.t.outcomes("late"))
        return await stage.candidates(), (await stage.log.ends([dead]))[Partition(dead, 1)]

    candidates, dead = asyncio.run(go())
    assert len(candidates) == 4
    assert dead == 1, "once, however often the trainer begins anew"
