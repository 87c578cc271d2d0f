"""A swap leaves no gap, and a version that cannot be trusted never takes over."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.services.air import TOPICS, Driven, World, answers, fitted, flight, late, learnt

from penstock.inputs import squashed
from penstock.log import Send
from penstock.snapshot import dump_river

SPOILT = ("tampered", "cut short", "missing", "not a model", "other width", "other inputs", "wicked")


class TestSwaps:
    def test_leave_no_gap(self, driven: Driven) -> None:
        world = driven.world
        driven.take(world.said("champion", "v1"))
        for n in range(0, 200, 20):
            swap = [world.said("champion", f"v{n // 20 % 3 + 1}")]
            driven.take(*swap, *(flight(i) for i in range(n, n + 20)))
        found = answers(driven.sent)
        assert [p.id for p in found] == [f"f{n}" for n in range(200)]
        assert [p.version for p in found] == [f"v{n // 20 % 3 + 1}" for n in range(200)]
        for n, prediction in enumerate(found):
            assert prediction.score == pytest.approx(world.expected(prediction.version, flight(n)), abs=1e-6)

    @pytest.mark.parametrize("how", SPOILT)
    def test_to_an_artefact_that_cannot_be_trusted_do_not_happen(self, driven: Driven, how: str) -> None:
        world = driven.world
        driven.take(world.said("champion", "v1"))
        said = spoilt(world, how)
        try:
            found = answers(driven.take(said, flight(0), flight(1)))
            assert [(p.version, set(p.scores)) for p in found] == [("v1", {"v1"})] * 2
            assert sum(s.value for m in driven.meters.artefacts.collect() for s in m.samples if "total" in s.name) == 1
            driven.open()
            found = answers(driven.take(flight(2)))
            assert [p.version for p in found] == ["v1"], "a restart falls back on the same version"
        finally:
            mended(world)
        (found_now,) = answers(driven.take(world.said("champion", "v3"), flight(3)))
        assert found_now.version == "v3"

    def test_to_a_challenger_that_cannot_be_trusted_leave_the_champion_alone(self, driven: Driven) -> None:
        world = driven.world
        spoilt(world, "tampered")
        try:
            sends = driven.take(world.said("champion", "v1"), world.said("challenger", "v2", "canary", 0.9), flight(0))
        finally:
            mended(world)
        assert [(p.version, p.variant, set(p.scores)) for p in answers(sends)] == [("v1", "champion", {"v1"})]

    def test_happen_late_when_the_file_comes_late(self, driven: Driven) -> None:
        world = driven.world
        path = world.artefacts.root / world.stored["v2"].uri
        kept = path.read_bytes()
        path.unlink()
        driven.take(world.said("champion", "v1"))
        assert [p.version for p in answers(driven.take(world.said("champion", "v2"), flight(0), now=100.0))] == ["v1"]
        path.write_bytes(kept)
        assert [p.version for p in answers(driven.take(flight(1), now=101.0))] == ["v1"]
        assert [p.version for p in answers(driven.take(flight(2), now=106.0))] == ["v2"]

    def test_to_a_bad_snapshot_keep_the_online_learner_that_was_there(self, driven: Driven) -> None:
        world, weights = driven.world, {"batch": 0.5, "online": 0.5}
        driven.take(world.said("champion", "v1"), world.said("online", "online-1", "snapshot", weights=weights))
        wicked = world.artefacts.put(b"\x80\x05cos\nsystem\n.", "river")
        (found,) = answers(driven.take(world.said("online", "online-2", "snapshot", artefact=wicked, weights=weights), flight(0)))
        assert found.weights == {"v1": 0.5, "online-1": 0.5}

    def test_a_version_fitted_before_an_input_was_added_goes_on(self, driven: Driven) -> None:
        names = ["Flight.distance", "Origin.flights_1h"]
        old = driven.world.artefacts.put(dump_river(learnt(names)), "river")
        said = driven.world.said("champion", "online-0", artefact=old, inputs=names)
        (found,) = answers(driven.take(said, flight(4)))
        x = {"Flight.distance": json.loads(bytes(found.inputs))["Flight.distance"], "Origin.flights_1h": 4.0}
        values = squashed(np.array([list(x.values())], np.float32))[0].tolist()
        assert found.score == pytest.approx(learnt(names).predict_proba_one(dict(zip(names, values, strict=True)))[True])

    def test_an_undecodable_decision_is_counted_and_changes_nothing(self, driven: Driven) -> None:
        driven.take(driven.world.said("champion", "v1"))
        sends = driven.take(Send(TOPICS.models, b"late/champion", b"{"), flight(0))
        assert [p.version for p in answers(sends)] == ["v1"]
        assert driven.meters.decisions._value.get() == 1

    def test_back_after_a_roll_back_need_no_file(self, driven: Driven) -> None:
        world = driven.world
        driven.take(world.said("champion", "v1"))
        driven.take(world.said("champion", "v2"), world.said("probation", "v1", "retired"))
        path = world.artefacts.root / world.stored["v1"].uri
        path.rename(path.with_suffix(".gone"))
        try:
            (found,) = answers(driven.take(world.said("champion", "v1"), world.said("probation", None), flight(0)))
        finally:
            path.with_suffix(".gone").rename(path)
        assert found.version == "v1"


def spoilt(world: World, how: str) -> Send:
    """The decision that makes v2 champion, with something wrong."""
    path = world.artefacts.root / world.stored["v2"].uri
    if not path.with_suffix(".kept").exists():
        path.with_suffix(".kept").write_bytes(path.read_bytes())
    data = path.read_bytes()
    if how == "tampered":
        path.write_bytes(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])
    elif how == "cut short":
        path.write_bytes(data[:-1])
    elif how == "missing":
        path.unlink()
    elif how == "not a model":
        return world.said("champion", "v2", artefact=world.artefacts.put(b"\x08\x08", "onnx"))
    elif how == "other width":
        return world.said("champion", "v2", artefact=world.artefacts.put(fitted(3, 1)[1], "onnx"))
    elif how == "other inputs":
        return world.said("champion", "v2", inputs=["Gone.feature", *late.inputs[1:]])
    elif how == "wicked":
        return world.said("champion", "v2", artefact=world.artefacts.put(b"\x80\x05cos\nsystem\n.", "river"))
    return world.said("champion", "v2")


def mended(world: World) -> None:
    path = world.artefacts.root / world.stored["v2"].uri
    path.write_bytes(path.with_suffix(".kept").read_bytes())
