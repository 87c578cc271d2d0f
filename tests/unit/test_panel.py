"""The panel: what reviewers and the page are told, from the two topics alone."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tests.services import depot
from tests.services.clinic import START, clinic

from penstock.log import Gap, Partition, Send
from penstock.log.memory import MemoryLog
from penstock.records import Queued, Reviewed
from penstock.reviewing.panel import Panel, key_of
from penstock.topics import Topics

TOPICS = clinic(2, most=3)
TOPICS_OF_NUMBERS = Topics(depot.project, 1)


def queued(name: str, distance: float = 0.0, flags: int = 0, have: int = 0, not_for: tuple[str, ...] = ()) -> Send:
    said = Queued(
        prediction=name, model="readmission", key="w", time=START, score=0.5, version="v1", distance=distance, flags=flags,
        notes=[], not_for=list(not_for), have=have, want=have + 1,
        inputs=msgspec.Raw(b"null"),
    )  # fmt: skip
    return Send(TOPICS.queue, key_of("readmission", name), msgspec.json.encode(said))


def ended(name: str, state: str, *said: tuple[str, bool], paired: bool = True) -> Send:
    told = Reviewed(
        id=f"{name}/{state}", prediction=name, model="readmission", state=state, at=START, paired=paired,
        reviewers=[by for by, _ in said], said=[says for _, says in said],
    )  # fmt: skip
    return Send(TOPICS.reviewed, name.encode(), msgspec.json.encode(told))


def names(panel: Panel) -> list[str]:
    return [queued.prediction for queued in panel.waiting()]


def shown(*records: Send, ask: Any = names) -> Any:
    async def work() -> Any:
        log, panel = MemoryLog(), Panel(TOPICS)
        await log.create(TOPICS.all())
        await log.send(records)
        await panel.watch(log)
        return ask(panel)

    return asyncio.run(work())


def test_the_most_useful_come_first_and_no_more_than_is_declared_of_all_partitions_together() -> None:
    records = [
        queued("far", 0.09), queued("begun", 0.05, have=1), queued("near", 0.01), queued("flagged", 0.4, flags=1),
        queued("contradicted", 0.05, have=2),
    ]  # fmt: skip
    assert shown(*records) == shown(*reversed(records)) == ["contradicted", "flagged", "begun"]
    gone = Send(TOPICS.queue, key_of("readmission", "flagged"), None)
    assert shown(*records, gone) == ["contradicted", "begun", "near"]


def test_nobody_is_shown_what_he_may_not_decide() -> None:
    records = [queued("a", not_for=("ada",)), queued("b")]
    assert shown(*records, ask=lambda panel: [q.prediction for q in panel.waiting(by="ada")]) == ["b"]


def test_agreement_is_that_of_pairs_each_counted_once_without_the_third() -> None:
    yes, no = ("ada", True), ("bob", False)
    records = [
        ended("a", "labelled", yes, ("bob", True)), ended("b", "contradicted", yes, no), ended("b", "contradicted", yes, no),
        ended("b", "labelled", yes, no, ("cyd", True)), ended("c", "labelled", yes, paired=False),
        ended("d", "labelled", ("ada", False), no), ended("e", "refused"), ended("f", "orphan"),
        Send(TOPICS.reviewed, b"g", b"not json"),
    ]  # fmt: skip
    found = shown(*records, ask=lambda panel: (panel.agreement("readmission"), panel.ends["readmission"], panel.unreadable))
    assert (found[0].answers, found[0].reviewers, found[0].metric) == (3, 2, "nominal")
    assert found[0].observed == pytest.approx(2 / 3)
    assert found[1:] == ({"labelled": 4, "contradicted": 1, "refused": 1, "orphan": 1}, 1)


def test_agreement_leaves_out_what_was_said_when_the_label_was_of_another_kind() -> None:
    def said(number: int, *truths: float | str, says: tuple[bool, ...] = ()) -> Send:
        told = Reviewed(
            id=f"r{number}", prediction=f"p{number}", model="hours", state="labelled", at=START, paired=True,
            reviewers=["ada", "bob"], said=list(says), truths=list(truths) if truths else msgspec.UNSET,
        )  # fmt: skip
        return Send(TOPICS_OF_NUMBERS.reviewed, b"p", msgspec.json.encode(told))

    async def work() -> tuple[int, Any]:
        log, panel = MemoryLog(), Panel(TOPICS_OF_NUMBERS)
        await log.create(TOPICS_OF_NUMBERS.all())
        await log.send([said(1, 3.0, 4.5), said(2, "front", "back"), said(3, says=(True, False))])
        await panel.watch(log)
        return panel.ends["hours"]["labelled"], panel.agreement("hours").answers

    assert asyncio.run(work()) == (3, 1)


def test_after_a_gap_it_reads_anew_what_is_there() -> None:
    async def work() -> list[str]:
        log, panel = MemoryLog(), Panel(TOPICS)
        await log.create(TOPICS.all())
        await panel.watch(log)
        await log.send([queued(f"o{i}") for i in range(9)])
        place = next(p for p in (Partition(TOPICS.queue, n) for n in (0, 1)) if len(log._stores[p].values) > 3)
        log.trim(place, 2)  # deleted unread
        with pytest.raises(Gap):
            await panel.watch(log)
        await panel.watch(log)
        return names(panel)

    assert len(asyncio.run(work())) == 3
