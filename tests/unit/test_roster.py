"""Who answers follows from the aliases alone, in whatever way the compacted topic was cut."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from penstock.errors import Refused
from penstock.records import Artefact, Candidate, Decision
from penstock.scoring.roster import ALIASES, BUCKETS, Roster, Rosters, bucket

AT = datetime(2024, 1, 1, tzinfo=UTC)


def decision(version: str, kind: str = "champion", model: str = "late", **fields: Any) -> Decision:
    artefact = Artefact(uri="a", sha256="0" * 64, size=1, format="onnx")
    candidate = Candidate(
        id=f"c-{version}", model=model, version=version, kind="full", at=AT, artefact=artefact, inputs=["V.a"],
        weights=fields.pop("weights", {}), edges={}, reference={}, metrics={}, run="r", fingerprint="f",
    )  # fmt: skip
    said: dict[str, Any] = {
        "share": 0.0,
        "actor": "registry",
        "reason": "",
        "expected": "",
        "evidence": {},
        "candidate": candidate,
    }
    return Decision(id=f"{kind}-{version}", model=model, kind=kind, version=version, at=AT, **(said | fields))


def record(key: str, said: Decision | None) -> tuple[bytes, bytes | None]:
    return key.encode(), None if said is None else msgspec.json.encode(said)


def heard(*records: tuple[bytes, bytes | None]) -> Rosters:
    rosters = Rosters()
    for key, value in records:
        rosters.hear(key, value)
    return rosters


class TestBuckets:
    @pytest.mark.parametrize(
        ("model", "entity", "expected"),
        [
            ("late", "JFK", 5487),
            ("late", "EWR", 942),
            ("fraud", "JFK", 1637),
            ("late", "", 6930),
            ("late", "Zürich", 9220),
        ],
    )
    def test_the_published_vectors_hold(self, model: str, entity: str, expected: int) -> None:
        assert bucket(model, entity) == expected

    def test_a_share_is_that_share_of_the_entities(self) -> None:
        for share in (0.01, 0.1, 0.5):
            inside = sum(bucket("late", f"e{i}") < share * BUCKETS for i in range(20_000)) / 20_000
            assert abs(inside - share) < 4 * (share * (1 - share) / 20_000) ** 0.5

    def test_two_models_split_independently(self) -> None:
        both = sum(bucket("late", f"e{i}") < 1000 and bucket("fraud", f"e{i}") < 1000 for i in range(20_000))
        assert abs(both / 20_000 - 0.01) < 0.003


class TestRosters:
    def test_a_model_that_nobody_decided_on_has_an_empty_roster(self) -> None:
        assert Rosters().of("late") == Roster()

    def test_aliases_fill_the_duties_and_tombstones_empty_them(self) -> None:
        said = {alias: decision(f"v{n}") for n, alias in enumerate(ALIASES)}
        rosters = heard(*(record(f"late/{alias}", d) for alias, d in said.items()))
        assert rosters.of("late") == Roster(**said)
        for alias in ALIASES:
            assert rosters.hear(*record(f"late/{alias}", None)) == "late"
        assert rosters.of("late") == Roster()
        assert not rosters.aliases

    def test_only_a_canary_has_a_share(self) -> None:
        shadow, canary = decision("v2", "shadow", share=0.3), decision("v2", "canary", share=0.3)
        assert heard(record("late/challenger", shadow)).of("late").share == 0.0
        assert heard(record("late/challenger", canary)).of("late").share == 0.3
        assert Roster().share == 0.0

    def test_weights_come_with_the_snapshot_and_are_made_to_add_to_one(self) -> None:
        assert Roster(online=decision("o", weights={"batch": 3.0, "online": 1.0})).online_weight == 0.25
        assert Roster(online=decision("o", weights={"batch": 0.0, "online": 0.0})).online_weight is None
        assert Roster(online=decision("o")).online_weight is None
        assert Roster(champion=decision("v1", weights={"batch": 0.5, "online": 0.5})).online_weight is None

    def test_a_registered_version_waits_until_it_has_a_duty_or_ends(self) -> None:
        rosters = heard(record("late/v2", decision("v2", "registered")))
        assert rosters.of("late").waiting == decision("v2", "registered")
        rosters.hear(*record("late/v1", decision("v1", "retired")))
        assert rosters.of("late").waiting is not None
        for ending in (
            record("late/v2", decision("v2", "rejected")),
            record("late/challenger", decision("v2", "shadow")),
        ):
            assert heard(record("late/v2", decision("v2", "registered")), ending).of("late").waiting is None

    def test_what_became_of_a_command_is_no_version(self) -> None:
        assert heard(record("late/command-1f", decision("v1", "registered"))).of("late") == Roster()

    def test_models_do_not_mix(self) -> None:
        rosters = heard(record("late/champion", decision("v1")), record("fraud/champion", decision("v9", model="fraud")))
        assert (rosters.of("late").champion, rosters.of("fraud").champion) == (
            decision("v1"),
            decision("v9", model="fraud"),
        )

    def test_hearing_the_same_again_changes_nothing(self) -> None:
        rosters = heard(record("late/champion", decision("v1")))
        assert rosters.hear(*record("late/champion", decision("v1"))) == ""

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            (None, b"{}"), (b"late", b"{}"), (b"late/champion", b"{}"), (b"late/champion", b"{"),
            (b"late/champion", b""), (b"late/champion", b"\xff"), (b"late/champion", b"[" * 100_000),
            (b"/champion", b"{}"), record("late/champion", decision("v1", model="fraud")),
        ],
        ids=range(9),
    )  # fmt: skip
    def test_what_is_no_decision_is_refused_and_changes_nothing(self, key: bytes | None, value: bytes | None) -> None:
        rosters = heard(record("late/champion", decision("v1")))
        with pytest.raises(Refused):
            rosters.hear(key, value)
        assert rosters.of("late").champion == decision("v1")
        assert len(rosters.aliases) == 1

    def test_compaction_and_restoring_give_the_same_rosters(self) -> None:
        drawn = random.Random(5)
        for _ in range(50):
            said = [
                record(f"late/{drawn.choice(ALIASES)}", drawn.choice([None, decision(f"v{drawn.randrange(4)}")]))
                for _ in range(20)
            ]
            whole = heard(*said)
            newest = {key: (place, value) for place, (key, value) in enumerate(said)}
            compacted = heard(*((key, value) for key, (_, value) in sorted(newest.items(), key=lambda item: item[1][0])))
            assert compacted.of("late") == whole.of("late")
            assert Rosters.restored(whole.aliases).of("late") == whole.of("late")

    def test_the_champion_before_is_known_in_whatever_way_the_topic_was_cut_unless_it_was_rolled_back(self) -> None:
        drawn = random.Random(7)
        for _ in range(50):
            said: list[tuple[bytes, bytes | None]] = []
            champion, before = "", ""
            for _ in range(drawn.randrange(1, 8)):
                version, ended = (
                    drawn.choice([f"v{n}" for n in range(4) if f"v{n}" != champion]),
                    drawn.choice(["retired", "rolled_back"]),
                )
                if champion:
                    if ended == "retired":
                        said.append(record("late/probation", decision(champion, ended)))
                    said.append(record(f"late/{champion}", decision(champion, ended)))
                    before = champion if ended == "retired" else ""
                took_over = decision(version, expected=champion)
                said += [record(f"late/{alias}", took_over) for alias in ("champion", version)]
                never = f"v{drawn.randrange(4, 9)}"
                said.append(record(f"late/{never}", decision(never, "retired")))
                champion = version
            whole = heard(*said).of("late")
            assert (whole.earlier.version if whole.earlier else "") == before
            newest = {key: place for place, (key, _) in enumerate(said)}
            compacted = heard(*(said[place] for place in sorted(newest.values()))).of("late")
            assert compacted == whole == Rosters.restored(heard(*said).aliases).of("late")
