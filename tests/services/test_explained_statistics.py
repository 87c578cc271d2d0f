"""What moves answers is published with the statistics: of a sample drawn by id, in sums that do not depend on who adds them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.services.shop import EDGES, LENGTH, REFERENCE, WHOLE, WORLD, decision, run

from penstock.artefact import Artefacts
from penstock.contributions.explainer import dumped
from penstock.contributions.linear import Linear
from penstock.contributions.trees import Trees
from penstock.event import to_micros
from penstock.records import Decision, Shift, Statistic
from penstock.services.monitoring.counting.explaining import Explaining, drawn

WEIGHTS, MEANS = np.array([0.3, -1.1]), np.array([20.0, 1.0])
STUMP = {"feature": [0, -1, -1], "threshold": [20.0, 0, 0], "below": [1, 0, 0], "above": [2, 0, 0], "missing": [2, 0, 0]}


@pytest.fixture
def explained(tmp_path: Path) -> dict[str, Any]:
    """v1 is linear in both inputs (that have values), v2 a stump on the amount; as `run` takes them."""
    artefacts = Artefacts(tmp_path)
    background = np.array([[0.0, 1.0], [40.0, 1.0]], np.float32)
    trees = Trees(np.array([0]), STUMP | {"value": [0.0, -0.5, 0.5]}, 0.0, "log-odds", background)
    files = {"v1": dumped(Linear(WEIGHTS, 0.0, MEANS)), "v2": dumped(trees)}
    decisions = {}
    for version, data in files.items():
        known = msgspec.json.decode(decision(version, EDGES, REFERENCE), type=Decision)
        assert known.candidate is not None
        candidate = msgspec.structs.replace(known.candidate, explainer=artefacts.put(data, "npz"))
        decisions[version] = msgspec.json.encode(msgspec.structs.replace(known, candidate=candidate))
    return {"explained": decisions, "artefacts": artefacts}


def expected(share: float) -> dict[tuple[int, str], dict[str, Any]]:
    """By window and version, added up by hand (of v1 where nothing is missing)."""
    found: dict[tuple[int, str], dict[str, Any]] = defaultdict(lambda: {"n": 0, "amount": 0.0})
    seen = set[str]()
    for p in WORLD.predictions:
        if p.version == "v2" and p.id not in seen and drawn("late", p.id, share):
            amount = msgspec.json.decode(p.inputs)["Order.amount"]
            sums = found[to_micros(p.time) // LENGTH * LENGTH, p.version]
            sums["n"] += 1
            sums["amount"] += 0.5 if amount > 20 else -0.5
        seen.add(p.id)
    return dict(found)


def test_sums_are_those_of_the_sample_for_any_partitions_pieces_and_crashes(explained: dict[str, Any]) -> None:
    whole = run(WORLD, explain=0.5, **explained)
    got = {
        (to_micros(w.start), "v2"): {"n": c.n, "amount": c.signed["Order.amount"]}
        for w in whole.windows
        if (c := w.contributions.get("v2"))
    }
    assert got == expected(0.5)
    assert 50 < sum(each["n"] for each in got.values()) < 100, "about half of 150 answers"
    assert run(WORLD, 4, explain=0.5, **explained).statistics == whole.statistics
    assert run(WORLD, 3, seed=1, die_at={40, 90}, explain=0.5, **explained).statistics == whole.statistics
    sizes = [c for w in whole.windows for c in w.contributions.values()]
    assert all(c.absolute[name] >= abs(c.signed[name]) for c in sizes for name in c.absolute)


def without_floors(statistic: Statistic) -> dict[str, Shift]:
    return {name: msgspec.structs.replace(shift, floor=None) for name, shift in statistic.drift.items()}


def test_explaining_changes_nothing_else_but_what_counts_as_material(explained: dict[str, Any]) -> None:
    with_it = run(WORLD, explain=1.0, **explained)
    for one, other in zip(with_it.windows, WHOLE.windows, strict=True):
        counts = {word: n for word, n in one.counts.items() if word != "unexplained"}
        assert msgspec.structs.replace(
            one, contributions={}, counts=counts, drift=without_floors(one)
        ) == msgspec.structs.replace(other, drift=without_floors(other))
    assert with_it.outcomes == WHOLE.outcomes


def test_an_answer_without_finite_contributions_is_counted_as_unexplained(explained: dict[str, Any]) -> None:
    """v1 is linear, so a missing value has no contribution; v2 is a tree and has one."""
    found = run(WORLD, explain=1.0, **explained)
    answers = {p.id: msgspec.json.decode(p.inputs)["Order.weight"] for p in WORLD.predictions if p.version == "v1"}
    missing = sum(weight is None for weight in answers.values())
    assert found.counts["unexplained"] == missing > 0
    assert sum(w.contributions["v1"].n for w in found.windows if "v1" in w.contributions) == len(answers) - missing


def test_an_answer_that_cannot_be_read_costs_no_other_its_explanation(explained: dict[str, Any]) -> None:
    """Else what is explained would depend on who was read with whom."""
    candidate = msgspec.json.decode(explained["explained"]["v2"], type=Decision).candidate
    assert candidate is not None
    explaining = Explaining(explained["artefacts"], candidate)
    good, bad = msgspec.Raw(b'{"Order.amount":30.0,"Order.weight":1.0}'), msgspec.Raw(b'{"Order.amount":"x"}')
    alone, together, none = (explaining.sums(rows) for rows in ([good], [bad, good], [bad]))
    assert alone is not None
    assert (alone, 1) == (together, alone.n)
    assert none is None or none.n == 0


def test_answers_are_explained_again_once_a_file_that_was_away_is_there(explained: dict[str, Any]) -> None:
    candidate = msgspec.json.decode(explained["explained"]["v2"], type=Decision).candidate
    assert candidate is not None and candidate.explainer is not None
    explaining, rows = Explaining(explained["artefacts"], candidate), [msgspec.Raw(b'{"Order.amount":30.0,"Order.weight":1.0}')]
    path = explained["artefacts"].root / candidate.explainer.uri
    path.rename(path.with_suffix(".away"))
    assert explaining.sums(rows) is None
    path.with_suffix(".away").rename(path)
    found = explaining.sums(rows)
    assert found is not None and found.n == 1
    path.write_bytes(b"spoilt")
    spoilt = Explaining(explained["artefacts"], candidate)
    assert spoilt.sums(rows) is None is spoilt.sums(rows)


def test_what_cannot_be_explained_is_counted_and_statistics_go_on(explained: dict[str, Any]) -> None:
    lost = run(WORLD, explain=1.0, artefacts=explained["artefacts"])  # decisions without explainers
    answers = {p.id for p in WORLD.predictions if p.version != "none"}
    assert lost.counts["unexplained"] == len(answers)
    assert all(not w.contributions for w in lost.windows)
    assert lost.outcomes == WHOLE.outcomes
