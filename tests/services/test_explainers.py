"""What explains the versions on duty: each by its own explainer, over its own inputs; who is not on duty is not explained."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from tests.services.air import World, late

from penstock.canaries import Canary
from penstock.contributions.explainer import dumped
from penstock.errors import PenstockError
from penstock.label import Label
from penstock.records import Decision
from penstock.scoring.around import NOTHING, Plan
from penstock.scoring.roster import Roster
from penstock.services.inference.duty import Duty
from penstock.services.inference.explainers import Explainers
from penstock.services.inference.meters import Meters
from penstock.services.inference.sessions import Member, Sessions
from penstock.services.trainer.explainer import explainer
from penstock.services.trainer.fitting import answering

VALUES = (3.0, None, 100.5, 1.0, 200.0)
ROWS = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32) * 100


def explaining(world: World, version: str, inputs: Sequence[str] = late.inputs) -> Decision:
    """A decision whose candidate has an explainer."""
    decision = world.decision(version, inputs=inputs)
    onnx = world.artefacts.get(world.stored[version])
    beside = world.artefacts.put(dumped(explainer(onnx, answering(onnx), ROWS)), "npz")
    assert decision.candidate is not None
    return msgspec.structs.replace(decision, candidate=msgspec.structs.replace(decision.candidate, explainer=beside))


def duty(world: World, roster: Roster) -> Duty:
    found = Duty(late, Sessions(world.artefacts, Meters()))
    found.follow(roster, 0.0)
    return found


def test_each_version_on_duty_is_explained_by_itself(world: World) -> None:
    champion, online = explaining(world, "v1"), world.decision("online-1")
    on_duty, explainers = duty(world, Roster(champion=champion, online=online)), Explainers(world.artefacts)
    for version in ("v1", "online-1"):
        said = explainers.explained(on_duty, version, VALUES)
        assert said.probability == pytest.approx(world.answer(version, VALUES), abs=1e-6)
        assert {part.input: part.value for part in said.contributions} == dict(zip(late.inputs, VALUES, strict=True))
        assert explainers.of(on_duty, version) is explainers.of(on_duty, version)


def test_a_version_that_was_fitted_on_other_inputs_is_explained_over_its_own(world: World) -> None:
    turned = late.inputs[::-1]
    on_duty = duty(world, Roster(champion=explaining(world, "v2", turned)))
    said = Explainers(world.artefacts).explained(on_duty, "v2", VALUES)
    assert said.probability == pytest.approx(world.answer("v2", VALUES[::-1]), abs=1e-6)
    assert {part.input: part.value for part in said.contributions} == dict(zip(late.inputs, VALUES, strict=True))


def test_whether_all_on_duty_can_be_explained_is_known_without_opening_anything(world: World) -> None:
    online = world.decision("online-1")
    assert Explainers.missing(duty(world, Roster(champion=explaining(world, "v1"), online=online))) == ""
    without = duty(world, Roster(champion=explaining(world, "v1"), challenger=world.decision("v2"), online=online))
    assert Explainers.missing(without).startswith("version v2 of late was fitted without an explainer")
    assert Explainers.missing(duty(world, Roster())) == ""


def test_while_a_version_is_opened_those_before_it_are_explained(world: World) -> None:
    """Opening takes as long as many questions, which come meanwhile."""
    first, second, third = (explaining(world, version) for version in ("v1", "v2", "v3"))
    asked: list[str] = []

    class Opening(Sessions):  # type: ignore[misc]  # of the wheel, which mypy does not look into here
        def member(
            self,
            decision: Decision,
            inputs: Sequence[str],
            label: Label | None = None,
            canaries: Sequence[Canary] = (),
            alone: bool = False,
            plan: Plan = NOTHING,
        ) -> Member | None:
            asked.append(Explainers.missing(found) if found.serving.members else "")
            return super().member(decision, inputs, label, canaries, alone, plan)

    found = Duty(late, Opening(world.artefacts, Meters()))
    found.follow(Roster(champion=first), 0.0)
    found.follow(Roster(champion=second, challenger=third), 0.0)
    assert asked == ["", "", ""]


def test_who_is_not_on_duty_or_has_no_explainer_is_refused_in_words(world: World) -> None:
    on_duty, explainers = duty(world, Roster(champion=world.decision("v1"))), Explainers(world.artefacts)
    with pytest.raises(PenstockError, match="version v1 of late was fitted without an explainer"):
        explainers.explained(on_duty, "v1", VALUES)
    with pytest.raises(PenstockError, match="model late has no version v2 on duty"):
        explainers.explained(on_duty, "v2", VALUES)
