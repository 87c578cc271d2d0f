"""The demo and simulate as a person runs them: the whole loop happens, and happens the same way twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest
from tests.services.cli.conftest import Cli, told

from penstock.cli import broker
from penstock.examples.flights.data import events, write
from penstock.log import Partition
from penstock.log.memory import MemoryLog
from penstock.project import load
from penstock.services.demo import missing_parts
from penstock.services.simulate import Finished, simulate
from penstock.settings import Settings
from penstock.statistics.measures import auc, log_loss

DAYS = 20
KEYS = {
    "type", "events_in", "rows", "predictions", "outcomes", "dead_lettered", "lost", "counted_twice", "auc", "log_loss",
    "alarms", "retrains", "promotions", "seconds",
}  # fmt: skip


def run(days: int = DAYS) -> Finished:
    return asyncio.run(simulate(load("penstock.examples.flights"), list(events(days))))


@cache
def finished() -> Finished:
    return run()


def topic_digest(done: Finished, topic: str) -> str:
    """A digest of every key and value of a topic, in order."""
    said = hashlib.sha256()
    store = done.machine.log._stores[Partition(topic, 0)]
    for key, value in zip(store.keys, store.values, strict=True):
        said.update(repr((key, value)).encode())
    return said.hexdigest()


def test_every_part_of_the_loop_happens_and_the_answers_are_better() -> None:
    assert missing_parts(finished().audit) == []


def test_without_a_broker_commands_answer_from_the_tables_what_they_answer_from_the_topics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, topics = finished().machine.log, finished().machine.topics

    @asynccontextmanager
    async def connected(settings: Settings) -> AsyncIterator[MemoryLog]:
        yield log

    monkeypatch.setattr(broker, "connected", connected)
    monkeypatch.setenv("PENSTOCK_PROJECT", "penstock.examples.flights")
    monkeypatch.setenv("PENSTOCK_DATA", str(tmp_path))
    reads = (
        "quality late",
        "quality arrived",
        "drift show",
        "novelty late",
        "report",
        "replay late --as-served",
        "fairness late",
        "alerts list",
    )
    for words in reads:
        live, kept = told(Cli(), log, topics, words, monkeypatch)
        if words == "alerts list":  # no table keeps the clock, so theirs is the time of the newest window
            live, kept = ([re.sub(r'"stream_time":"[^"]+"', "", text) for text in texts] for texts in (live, kept))
        assert live == kept and live[1].strip(), words


def test_two_runs_take_byte_identical_decisions() -> None:
    first, second = finished(), run()
    topics = first.machine.topics
    for topic in (
        topics.alarms,
        topics.models,
        topics.candidates,
        topics.runs,
        topics.statistics("late"),
        topics.predictions("late"),
    ):
        assert topic_digest(first, topic) == topic_digest(second, topic), f"{topic} differs between two runs of the same input"


def test_the_audit_notices_a_row_that_is_lost_and_one_that_is_there_twice() -> None:
    from penstock.proof.audit import audit

    done = finished()
    rows = done.machine.log._stores[Partition(done.machine.topics.rows(done.machine.project.events[0]), 0)]
    kept = rows.values[7]
    try:
        rows.values[7] = rows.values[8]
        found = asyncio.run(audit(done.machine.log, done.machine.topics))
    finally:
        rows.values[7] = kept
    assert found.lost >= 1, found.complaints
    assert found.counted_twice >= 1, found.complaints


def test_the_last_line_of_json_is_the_summary(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "penstock.cli", "demo", "--embedded", "--json", "--days", str(DAYS)]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert said.returncode == 0, said.stdout[-2000:] + said.stderr[-2000:]
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    assert lines[-1]["type"] == "summary"
    assert set(lines[-1]) >= KEYS
    assert lines[-1]["lost"] == lines[-1]["counted_twice"] == 0
    assert set(lines[-1]["auc"]) == {"served", "first_model", "prior"}
    assert list(tmp_path.iterdir()) == [], "an embedded demo leaves nothing behind"


def test_simulate_reads_files_and_agrees_with_the_demo(tmp_path: Path) -> None:
    write(tmp_path / "history", DAYS)
    command = [
        sys.executable,
        "-m",
        "penstock.cli",
        "simulate",
        "penstock.examples.flights",
        "--input",
        str(tmp_path / "history"),
        "--json",
    ]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert said.returncode == 0, said.stdout[-2000:] + said.stderr[-2000:]
    summary = json.loads(said.stdout.splitlines()[-1])
    assert summary["rows"] == finished().audit.rows
    assert summary["auc"] == pytest.approx(finished().audit.auc)


def test_the_area_under_the_curve_counts_ties_half() -> None:
    import numpy as np

    label = np.array([True, False, True, False])
    assert auc(label, np.array([0.5, 0.5, 0.9, 0.1])) == 0.875
    assert auc(np.array([True, True]), np.array([0.1, 0.2])) is None
    assert log_loss(np.array([True]), np.array([0.5])) == pytest.approx(0.6931, abs=1e-4)
