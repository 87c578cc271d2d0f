"""simulate: the whole loop over files, what is left out of them, and how the story is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from penstock.cli.live import Live
from penstock.picture import Happening, Picture
from penstock.project import Project, load
from penstock.proof.audit import Audit
from penstock.services.simulate import worse
from penstock.topics import Topics

if TYPE_CHECKING:
    from tests.services.cli.conftest import Cli

HISTORY = """payment_id,card_id,amount,paid_at
p1,c1,3,2026-01-01T12:00:00Z
p2,c1,much,2026-01-01T12:01:00Z
p3,c1,5,2026-01-01T12:02:00
"""


@pytest.fixture
def history(here: Path, shop: Callable[[str], None]) -> Path:
    shop("card")
    (here / "history").mkdir()
    found = here / "history" / "card.payments.csv"
    found.write_text(HISTORY)
    return found


def test_rows_that_do_not_fit_are_told_counted_and_make_the_run_fail(cli: Cli, history: Path) -> None:
    said = cli("simulate", "shop.py", "--input", "history")
    assert said.exit_code == 1
    assert "card.payments.csv line 3: schema: column amount: 'much' is no number" in said.stderr
    assert "card.payments.csv line 4: schema: column paid_at: 2026-01-01 12:02:00 has no time zone" in said.stderr
    assert "LEFT OUT: 2 rows of the files" in said.stdout
    summary = cli.lines("simulate", "--project", "shop.py", "--input", "history", code=1)[-1]
    assert (summary["events_in"], summary["rows"], summary["refused"]) == (1, 1, 2)
    assert [(each["file"], each["row"]) for each in summary["refusals"]] == [("card.payments.csv", 3), ("card.payments.csv", 4)]


def test_times_without_a_zone_are_utc_when_that_is_said_and_a_run_without_refusals_is_ok(cli: Cli, history: Path) -> None:
    history.write_text(HISTORY.replace("much", "4"))
    summary = cli.lines("simulate", "shop.py", "--input", "history", "--utc")[-1]
    assert (summary["events_in"], summary["refused"], summary["refusals"]) == (3, 0, [])


def test_what_does_not_meet_an_expectation_is_dead_lettered_as_on_kafka_and_the_run_is_ok(cli: Cli, history: Path) -> None:
    history.write_text("payment_id,card_id,amount,paid_at\np2,c1,500,2026-01-01T12:01:00Z\np1,c1,3,2026-01-01T12:00:00Z\n")
    with Path("shop.py").open("a") as file:
        file.write('ps.expect(Payment.amount, between=(0, 100), otherwise="dead_letter")\n')
    said = cli("simulate", "shop.py", "--input", "history", "--json")
    summary = json.loads(said.stdout.splitlines()[-1])
    assert (said.exit_code, summary["events_in"], summary["rows"], summary["dead_lettered"]) == (0, 2, 1, 1)
    why = "Payment.amount is 500.0; expected between 0 and 100"
    assert summary["dead_letters"] == {"card.payments: expectation": {"count": 1, "first": why}}
    assert f"1 of card.payments: expectation, such as: {why}" in cli("simulate", "shop.py", "--input", "history").stdout
    assert "line 2: the stream refuses it: expectation: Payment.amount is 500.0; expected between 0 and 100" in said.stderr


def test_a_run_keeps_its_tables_where_it_is_told_to_and_never_beside_those_of_another(
    cli: Cli, history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.write_text(HISTORY.replace("much", "4"))
    words = ("simulate", "shop.py", "--input", "history", "--utc", "--tables", "kept")
    assert cli(*words).exit_code == 0
    monkeypatch.setenv("PENSTOCK_TABLES", "kept")
    found = {each["table"]: each["rows"] for each in cli.lines("tables", "list")[0]["tables"]}
    assert (found["card.payments"], found["cardx.rows.card.payments"]) == (3, 3)
    again = cli(*words)
    assert again.exit_code == 1 and "tables in" in again.stderr and "already" in again.stderr


def test_files_of_which_nothing_can_be_read_are_no_run(cli: Cli, history: Path) -> None:
    history.write_text("payment_id,card_id,amount,paid_at\n")
    said = cli("simulate", "shop.py", "--input", "history")
    assert said.exit_code == 2
    assert "history holds no event that can be read" in said.stderr


@pytest.mark.parametrize("json_lines", [False, True])
def test_the_story_is_told_in_stream_time_whatever_topic_is_heard_first(
    capsys: pytest.CaptureFixture[str], json_lines: bool
) -> None:
    def day(number: float) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)

    picture = Picture(Topics(load("penstock.examples.flights")))
    with Live("a story", day(0), day(9), 100, json_lines) as live:
        for at, kind in ((2, "alarm"), (3, "alarm"), (2, "champion"), (3, "shadow"), (2, "fit"), (3, "fit")):
            picture.happenings.append(Happening(day(at), kind, "late", "because"))
            picture.heard += 1
        live.update(picture, 50, day(2.5), final=True)  # what is published ends before the last happening
        live.update(picture, 60, day(4), final=True)
    said = capsys.readouterr().out.splitlines()
    if json_lines:
        told = [(each["at"][:10], each.get("kind", "-")) for each in map(json.loads, said)]
    else:
        told = [(line[:10], line.split()[1] if "events" not in line else "-") for line in said[1:]]
    assert told == [
        ("2026-01-03", "alarm"),
        ("2026-01-03", "fit"),
        ("2026-01-03", "champion"),
        ("2026-01-04", "alarm"),
        ("2026-01-04", "fit"),
        ("2026-01-04", "shadow"),
        ("2026-01-04", "-"),
        ("2026-01-05", "-"),
    ]


def test_where_there_are_several_models_each_line_names_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    one = load("penstock.examples.flights")
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for project in (one, Project("two", [one.models[0], replace(one.models[0], name="later")])):
        picture = Picture(Topics(project))
        picture.happenings = [Happening(start, "alarm", "later", "drift raised"), Happening(start, "alarm", "", "blank")]
        picture.heard = 2
        with Live("a story", start, start + timedelta(days=1), 1, False) as live:
            live.update(picture, 1, start, final=True)
    told = [line.split(maxsplit=2)[2] for line in capsys.readouterr().out.splitlines() if " alarm " in line]
    assert told == ["drift raised", "blank", "later: drift raised", "blank"]


def test_where_labels_are_numbers_or_classes_the_prior_is_no_rate_of_positive_ones() -> None:
    losses = {"band, log loss": {"served": 1.0863, "prior": 0.7205}}
    (said,) = worse(Audit(losses=losses))
    assert said == (
        "the answers served are worse than what recent labels alone would have answered: band, log loss 1.0863, and 0.7205 by it"
    )


def test_answers_that_were_worse_than_doing_nothing_are_said_to_be() -> None:
    found = Audit(
        auc={"served": 0.6, "first_model": 0.6, "prior": 0.5}, log_loss={"served": 0.7, "first_model": 0.6, "prior": 0.5}
    )
    assert worse(found) == [
        "the answers served are worse than the first model, kept unchanged: log loss 0.7000, and 0.6000 by it",
        "the answers served are worse than the recent rate of positive labels alone: log loss 0.7000, and 0.5000 by it",
    ]
    said = "the answers served are not better than the first model, kept unchanged: area under the curve 0.6000, and 0.6000 by it"
    assert said in worse(found, demanding=True)
    assert worse(Audit()) == []
    assert worse(Audit(), demanding=True) == [
        "area under the curve of the answers served could not be computed",
        "log loss of the answers served could not be computed",
    ]
