"""What the dashboard shows of a model, and of the flow: a fold of the topics, shortened without leaving anything out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from tests.services.cars import CARS, DAY, START, alarm, decision, shift, window

from penstock.log import Send
from penstock.log.memory import MemoryLog
from penstock.records import Command
from penstock.services.dashboard.heat import COLUMNS, ROWS
from penstock.services.dashboard.lookout import Lookout
from penstock.services.dashboard.shown import STEPS


async def seen(records: Sequence[Send] = ()) -> Any:
    """What /picture answers about these records."""
    log = MemoryLog()
    await log.create(CARS.all())
    await log.send(records)
    lookout = Lookout(CARS, log, clock=lambda: 0.0)
    await lookout.look()
    return json.loads(lookout.message())


def shown(*records: Send) -> Any:
    return asyncio.run(seen(records))["models"][0]


def test_lag_is_what_became_neither_a_record_of_the_next_stage_nor_a_dead_letter() -> None:
    trips = [Send("trips", b"a", b"{}")] * 10
    rows = [Send(CARS.rows(CARS.project.events[0]), b"a", b"{}")] * 6
    answers = [Send(CARS.predictions("late"), b"a", b"{}")] * 5
    outcomes = [Send(CARS.outcomes("late"), b"a", b"{}")] * 2
    flow = asyncio.run(seen([*trips, *rows, *answers, *outcomes, Send("trips.dlq", b"a", b"x")]))["flow"]
    assert [place["waiting"] for place in flow["places"]] == [None, 3, 1, 3]
    assert flow["dead"] == {"trips.dlq": 1}


# ---- what is shown of a model


def test_a_window_without_labels_is_a_gap_not_a_zero() -> None:
    steps = shown(window(0), window(1, n=0), window(2, loss=0.4))["steps"]
    assert [(step[2], step[3], step[4]) for step in steps] == [(100, 0.5, 0.6), (0, None, None), (100, 0.4, 0.6)]


def test_long_histories_are_added_together_and_stay_exact() -> None:
    days, losses = 4 * STEPS, [0.3 + (day % 7) / 10 for day in range(4 * STEPS)]
    model = shown(*[window(day, n=10 + day % 3, loss=losses[day]) for day in range(days)])
    assert (len(model["steps"]), model["covers"]) == (STEPS, 4)
    assert sum(step[2] for step in model["steps"]) == sum(10 + day % 3 for day in range(days))
    n = [10 + day % 3 for day in range(4)]
    assert model["steps"][0][3] == pytest.approx(sum(n[d] * losses[d] for d in range(4)) / sum(n), abs=1e-5)


def test_a_hole_in_time_stays_a_hole_when_windows_are_added_together() -> None:
    days = [*range(STEPS), *range(3 * STEPS, 4 * STEPS)]
    steps = shown(*[window(day) for day in days])["steps"]
    ends = [(a[1], b[0]) for a, b in pairwise(steps) if a[1] != b[0]]
    assert ends == [((START + STEPS * DAY).isoformat()[:19] + "Z", (START + 3 * STEPS * DAY).isoformat()[:19] + "Z")]


def test_drift_is_relative_to_the_limit_that_alarms_go_by() -> None:
    moved = {"Trip.distance": shift(0.5, 0.05, floor=0.6), "Trip.load": shift(0.3, 0.2, floor=0.1)}
    rows = shown(window(0, drift=moved))["heat"]["rows"]
    assert [(row["input"], row["cells"]) for row in rows] == [
        ("Trip.distance", [[0.5, 0.6, 900]]),  # not an alarm: it always moves as much
        ("Trip.load", [[0.3, 0.2, 900]]),
    ]
    old = shown(window(0, drift={"Trip.distance": shift(0.5, 0.05)}))["heat"]["rows"]
    assert old[0]["cells"] == [[0.5, 0.1, 900]], "a record that does not say goes by what the project declares"


def test_a_window_in_which_nothing_was_tested_is_a_column_of_its_own() -> None:
    tested = {"Trip.load": shift(0.2)}
    heat = shown(window(0, drift=tested), window(1), window(3, drift=tested))["heat"]
    assert [cell is None for cell in heat["rows"][0]["cells"]] == [False, True, True, False]
    assert len(heat["columns"]) == 4


def test_the_heat_map_keeps_the_newest_windows_and_the_inputs_that_moved_most() -> None:
    names = [f"input{at:03}" for at in range(2 * ROWS)]
    records = [window(day, drift={name: shift(0.001 * at) for at, name in enumerate(names)}) for day in range(COLUMNS + 5)]
    heat = shown(*records)["heat"]
    assert (len(heat["columns"]), heat["inputs"]) == (COLUMNS, 2 * ROWS)
    assert [row["input"] for row in heat["rows"]] == names[ROWS:]
    assert heat["columns"][-1] == (START + (COLUMNS + 5) * DAY).isoformat()[:19] + "Z"


def test_a_challenger_is_shown_with_its_stage_and_how_it_does() -> None:
    model = shown(
        decision("champion", "champion", "v1", share=1.0),
        decision("challenger", "canary", "v2", share=0.25, stage=1, n=700, mean=-0.02, error=0.01, against="v1"),
        window(0, v2=0.45),
    )
    assert model["challenger"]["evidence"] == {"stage": 1, "n": 700, "mean": -0.02, "error": 0.01, "against": "v1"}
    assert (model["challenger"]["share"], model["challenger"]["candidate"]) == (0.25, None)
    assert model["steps"][0][5] == 0.45


def test_a_challenger_that_was_promoted_is_no_challenger_any_more() -> None:
    model = shown(decision("challenger", "canary", "v2"), decision("champion", "champion", "v2"))
    assert (model["champion"]["version"], model["challenger"]) == ("v2", None)


def test_happenings_are_shown_newest_first_whatever_order_the_topics_are_read_in() -> None:
    model = shown(decision("champion", "champion", "v1", "first"), alarm(tested=3), alarm("cleared"))
    assert [(h["kind"], h["state"]) for h in model["happenings"]] == [
        ("alarm", "cleared"),
        ("alarm", "raised"),
        ("champion", "promoted"),
    ]
    assert model["alarms"] == []


def test_an_open_alarm_shows_the_inputs_that_moved_with_their_limits() -> None:
    inputs = [{"input": "Trip.load", "ks": 0.5, "critical": 0.05, "floor": 0.1, "n": 900}]
    opened = shown(alarm(since="2013-01-02T00:00:00+00:00", inputs=inputs, shifted=1))["alarms"][0]
    assert opened["facts"] == ["Trip.load moved by 0.5 (limit 0.1), beyond it", "shifted 1"]
    assert opened["since"] == "2013-01-02T00:00:00+00:00"


def test_commands_of_people_reach_the_page_only_as_the_registry_decided_them() -> None:
    command = Command(id="c", model="late", action="promote", at=START, actor="somebody", reason="now!")
    assert shown(Send(CARS.commands, b"late", msgspec.json.encode(command)))["happenings"] == []
