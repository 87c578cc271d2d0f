"""penstock features: what people see of views, of their proof, and of what is behind a value."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake
from tests.laws.served import PROJECT, Batch, Shop, ask, published, sale, visit

from penstock.event import event_of
from penstock.feature import view_of
from penstock.store.redis import RedisStore

if TYPE_CHECKING:
    from tests.services.cli.conftest import Cli

STRANGE = 'a "b" 1,2 é'
"""A key that a shell, JSON and a compound name could each take for something else."""


@pytest.fixture
def street(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an archived day, one late event in it, and the settings that lead there."""
    first = [
        sale("s0", 1, paid=5.0), sale("s1", 30, paid=7.0), visit(31, length=2.0), ask("q0", 40), ask("q1", 59, shop=STRANGE),
        sale("s2", 62, paid=None), ask("q2", 63),
    ]  # fmt: skip
    published(here / ".penstock", [Batch(first, before=100), Batch([sale("s3", 35, paid=9.0), ask("q3", 110)], before=None)])
    (here / "street.py").write_text("from tests.laws.served import PROJECT as project\n")
    monkeypatch.setenv("PENSTOCK_PROJECT", "street.py")
    return here / ".penstock" / "tables"


def rewritten(table: Path, column: str, change: Any) -> None:
    """Overwrite an offline table with one column changed."""
    held = pa.table(DeltaTable(str(table)).to_pyarrow_table())
    values = change(held[column].to_pylist())
    place = held.column_names.index(column)
    write_deltalake(str(table), held.set_column(place, column, pa.array(values, held[column].type)), mode="overwrite")


# -- what is declared ------------------------------------------------------------------------------------------------


def test_list_says_key_features_events_fingerprint_and_readers_of_every_view(cli: Cli) -> None:
    views = {view["view"]: view for view in cli.json("features", "list")["views"]}
    assert list(views) == ["Origin", "Carrier", "Destination", "Aircraft", "Path"]
    path = views["Path"]
    assert (path["key"], path["events"], path["models"]) == ("origin+dest", ["Arrived"], ["late"])
    assert path["features"] == ["Path.delay_7d", "Path.late_7d"]
    assert len(path["fingerprint"]) == 12
    said = cli("features", "list").stdout
    assert all(name in said for name in ("Origin  by origin", "waiting", path["fingerprint"], "read by late"))


def test_show_says_how_every_feature_is_written_and_how_long_its_window_gets(cli: Cli) -> None:
    found = {item["name"]: item for item in cli.json("features", "show", "Origin")["definitions"]}
    assert found["delay_24h"]["definition"] == "mean(Departed.delay, over='1d')"
    assert (found["delay_24h"]["over"], found["delay_24h"]["hop"]) == ("1d", "1h")
    assert found["temp"]["over"] is None
    assert "self.planned_4h - self.planned_1h" in found["waiting"]["source"]
    assert "Departed.departed_at" in found["waiting"]["made_from"]
    said = cli("features", "show", "Origin")
    assert "its queue, its delays, its weather" in said.stdout
    assert "at least as long as it says" in said.stderr


def test_graph_leads_from_topics_by_columns_to_models(cli: Cli) -> None:
    found = cli.json("features", "graph")
    kinds = {node["id"]: node["kind"] for node in found["nodes"]}
    assert kinds["topic:weather"] == "topic"
    assert kinds["Weather.temp"] == "column"
    assert kinds["Origin.waiting"] == "derived"
    assert {"from": "Weather.temp", "to": "Origin.temp", "role": "value"} in found["edges"]
    assert {"from": "Origin.temp", "to": "model:late", "role": "input"} in found["edges"]
    assert all({edge["from"], edge["to"]} <= set(kinds) for edge in found["edges"])


def test_graph_of_one_thing_leaves_the_rest_out(cli: Cli) -> None:
    ids = [node["id"] for node in cli.json("features", "graph", "--of", "Weather.temp")["nodes"]]
    assert ids == ["topic:weather", "Weather.temp", "Origin.temp", "model:late"]
    said = cli("features", "graph", "--of", "Weather.tmp")
    assert said.exit_code == 1
    assert "did you mean Weather.temp?" in said.stderr


def test_graph_as_mermaid_joins_only_what_it_draws(cli: Cli) -> None:
    lines = cli("features", "graph", "--mermaid").stdout.splitlines()
    assert lines[0] == "flowchart LR"
    drawn = {line.split("[")[0].split("(")[0].strip() for line in lines if '"]' in line and "subgraph" not in line}
    drawn |= {line.split("(")[0].strip() for line in lines if '(["' in line}
    arrows = [line.split() for line in lines if "-->" in line or "-.->" in line]
    assert {name for words in arrows for name in (words[0], words[-1])} <= drawn
    assert '  subgraph g0["Scheduled (topic scheduled)"]' in lines


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (["show", "Orign"], "has no view 'Orign'", "did you mean Origin?"),
        (["explain", "Orign", "JFK", "temp"], "has no view 'Orign'", "did you mean Origin?"),
        (["explain", "Origin", "JFK", "tmp"], "has no feature 'tmp'", "did you mean temp?"),
        (["explain", "Origin", "JFK", "temp"], "no events are archived", "penstock up"),
        (["verify"], "no rows of scheduled are archived", "penstock up"),
    ],
)
def test_what_is_not_there_is_said_with_what_to_type(cli: Cli, words: list[str], what: str, fix: str) -> None:
    said = cli("features", *words)
    assert said.exit_code in (1, 3)
    first, second = said.stderr.strip().split("\n")[-2:]
    assert what in first
    assert fix in second
    assert said.stdout == ""


# -- proof -----------------------------------------------------------------------------------------------------------


def test_verify_explains_what_came_late_and_ends_well(cli: Cli, street: Path) -> None:
    found = cli.json("features", "verify")
    assert (found["rows"], found["of"], found["values"]) == (4, 4, 4 * 14)
    assert set(found["causes"]) == {"late"}
    late = next(d for d in found["differences"] if d["column"] == "Shop.paid_1h" and d["id"] == "q0")
    assert (late["served"], late["recomputed"]) == (6.0, 7.0)
    assert [event["id"] for event in late["events"]] == ["s3"]
    said = cli("features", "verify")
    assert said.exit_code == 0
    assert "sales/0 at 3" in said.stdout
    assert "late" in said.stdout


def test_verify_fails_where_a_value_is_left_unexplained_and_says_what_to_look_at(cli: Cli, street: Path) -> None:
    rewritten(street / "street.rows.asks", "Shop.asks_1h", lambda values: [value + 1 for value in values])
    said = cli("features", "verify")
    assert said.exit_code == 1
    assert "unexplained" in said.stdout
    what, fix = said.stderr.strip().split("\n")[-2:]
    assert "4 values of 56 unexplained" in what
    words = fix.removeprefix("-> ").split()
    assert words[:4] == ["penstock", "features", "explain", "Shop"]
    again = cli("features", "verify", "--json")
    assert again.exit_code == 1
    assert json.loads(again.stdout)["causes"]["unexplained"] == 4


def test_verify_finds_an_event_that_was_changed(cli: Cli, street: Path) -> None:
    rewritten(street / "sales", "paid", lambda values: [value and value + 1 for value in values])
    assert cli("features", "verify").exit_code == 1


def test_verify_refuses_a_table_of_other_events(cli: Cli, street: Path) -> None:
    held = pa.table(DeltaTable(str(street / "asks")).to_pyarrow_table())
    write_deltalake(str(street / "asks"), held.drop_columns(["price"]), mode="overwrite", schema_mode="overwrite")
    said = cli("features", "verify")
    assert said.exit_code == 1
    assert "has no column price" in said.stderr


def test_verify_draws_a_sample(cli: Cli, street: Path) -> None:
    found = cli.json("features", "verify", "--sample", "2", "--seed", "3")
    assert (found["rows"], found["of"], found["seed"]) == (2, 4, 3)


def test_verify_says_that_the_event_of_a_row_is_not_archived_yet_and_calls_nobody_nobody(cli: Cli, street: Path) -> None:
    held = pa.table(DeltaTable(str(street / "asks")).to_pyarrow_table())
    without = held.filter(pc.not_equal(held["ask_id"], "q3"))
    write_deltalake(str(street / "asks"), without, mode="overwrite")
    said = cli("features", "verify").stdout
    assert "its event, asks/0 at 3, is not in the table yet" in said
    assert "Shop.asks_1h, row q3 at" in said
    assert "nobody" not in said
    unarchived = [d for d in cli.json("features", "verify")["differences"] if d["cause"] == "unarchived"]
    assert {(d["id"], d["archived"], d["entity"]) for d in unarchived} == {("q3", False, None)}


def test_verify_says_how_far_it_is_where_there_is_no_terminal(cli: Cli, street: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.cli import screen
    from penstock.proof import walk

    monkeypatch.setattr(screen, "SILENCE", 0.0)
    monkeypatch.setattr(screen, "AGAIN", 0.0)
    monkeypatch.setattr(walk, "OFTEN", 2)
    said = cli("features", "verify", "--json")
    assert json.loads(said.stdout)["rows"] == 4
    assert [x.strip() for x in said.stderr.splitlines() if "rows  2 of 4" in x][:1] == ["Shop: recomputing rows  2 of 4 rows"]


# -- explanation -----------------------------------------------------------------------------------------------------


def test_explain_shows_window_tiles_and_events_of_a_value(cli: Cli, street: Path) -> None:
    found = cli.json("features", "explain", "Shop", "a", "paid_1h", "--at", "2026-03-01T01:00:00Z")
    said = found["explanation"]
    assert said["definition"] == "mean(Sale.paid, over='1h')"
    assert (said["start"], said["as_of"], said["seconds"]) == ("2026-03-01T00:00:00Z", "2026-03-01T01:00:00Z", 3600.0)
    assert said["value"] == 6.0
    tiles = [(tile["start"][11:16], tile["events"], tile["sum"]) for tile in said["tiles"]]
    assert tiles == [("00:00", 1, 5.0), ("00:30", 1, 7.0)]
    events = [(event["id"], event["topic"], event["offset"], event["value"]) for event in said["inside"]]
    assert events == [("s0", "sales", 0, 5.0), ("s1", "sales", 1, 7.0)]


def test_explain_floors_the_older_end_of_a_window_and_keeps_the_newer_one_exact(cli: Cli, street: Path) -> None:
    said = cli.json("features", "explain", "Shop", "a", "paid_1h", "--at", "2026-03-01T01:04:59Z")["explanation"]
    assert (said["start"], said["seconds"]) == ("2026-03-01T00:00:00Z", 3899.0)
    said = cli.json("features", "explain", "Shop", "a", "paid_1h", "--at", "2026-03-01T01:05:00Z")["explanation"]
    assert said["start"] == "2026-03-01T00:05:00Z"


def test_explain_tells_which_events_came_late(cli: Cli, street: Path) -> None:
    said = cli.json("features", "explain", "Shop", "a", "paid_1d")["explanation"]
    assert {event["id"]: event["behind"] for event in said["inside"]} == {"s0": 0.0, "s1": 0.0, "s3": 28 * 60.0}, "q2 was before"
    assert "1 of them late" in cli("features", "explain", "Shop", "a", "paid_1d").stdout


def test_explain_of_a_row_says_what_was_served_and_what_came_after_it(cli: Cli, street: Path) -> None:
    found = cli.json("features", "explain", "Shop", "a", "paid_1h", "--id", "q0")
    assert (found["served"]["value"], found["served"]["exact"], found["explanation"]["value"]) == (6.0, True, 6.0)
    assert [event["id"] for event in found["served"]["missed"]] == ["s3"]
    said = cli("features", "explain", "Shop", "a", "paid_1h", "--id", "q0").stdout
    assert "6 in the row of q0" in said
    assert "came after it: 1 event" in said


def test_explain_of_a_row_that_was_tampered_with_shows_both_values(cli: Cli, street: Path) -> None:
    rewritten(street / "street.rows.asks", "Shop.asks_1h", lambda values: [value + 1 for value in values])
    found = cli.json("features", "explain", "Shop", "a", "asks_1h", "--id", "q2")
    assert (found["served"]["value"], found["explanation"]["value"]) == (2.0, 1.0)
    assert found["served"]["cause"] == "unexplained"


def test_explain_of_a_derived_feature_shows_what_it_is_made_from(cli: Cli, street: Path) -> None:
    found = cli.json("features", "explain", "Shop", "a", "Shop.dear", "--id", "q2")["explanation"]
    assert found["parts"] == {"Ask.price": 1.0, "Shop.newest": 7.0}
    assert found["value"] == -6.0
    assert cli.json("features", "explain", "Shop", "a", "dear")["explanation"]["value"] is None  # there is no event


def test_explain_shows_what_the_online_store_has_beside_it(
    cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    events = [sale("s0", 1, paid=5.0), sale("s1", 30, paid=7.0), ask("q0", 40)]
    published(here / ".penstock", [Batch(events, before=None)], store=RedisStore(redis_url, "street"))
    (here / "street.py").write_text("from tests.laws.served import PROJECT as project\n")
    monkeypatch.setenv("PENSTOCK_PROJECT", "street.py")
    monkeypatch.setenv("REDIS_URL", redis_url)
    found = cli.json("features", "explain", "Shop", "a", "paid_1h")
    assert (found["online"]["value"], found["online"]["as_of"]) == (6.0, "2026-03-01T00:40:00Z")
    assert found["explanation"]["value"] == 6.0
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    assert cli.json("features", "explain", "Shop", "a", "paid_1h")["online"]["status"].startswith("cannot be asked")


def test_explain_takes_any_key(cli: Cli, street: Path) -> None:
    found = cli.json("features", "explain", "Shop", STRANGE, "asks_1h")
    assert (found["key"], found["explanation"]["value"]) == (STRANGE, 1.0)


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (["Shop", "aa", "asks_1h"], "no archived event is of shop 'aa'", "did you mean a?"),
        (["Shop", "", "asks_1h"], "no archived event is of shop ''", "there are 2"),
        (["Shop", "a", "asks_1h", "--id", "q00"], "no row of an event 'q00'", "did you mean q"),
        (["Shop", "a", "asks_1h", "--id", "q1"], "row q1 is not of shop a", f"it is of '{STRANGE}'"),
        (["Shop", "a", "asks_1h", "--at", "2025-01-01T00:00Z"], "the archive begins at 2026-03-01", "up to 2026-03-01"),
        (["Shop", "a", "asks_1h", "--at", "noon"], "'noon' is no time", "explain --help"),
        (["Shop", "a", "asks_1h", "--at", "2026-03-01"], "write 2026-03-01T00:00:00Z", "explain --help"),
        (["Shop", "a", "asks_1h", "--at", "2026-03-01T00:00Z", "--id", "q1"], "exclude each other", "explain --help"),
    ],
)
def test_explain_says_what_cannot_be_found(cli: Cli, street: Path, words: list[str], what: str, fix: str) -> None:
    said = cli("features", "explain", *words)
    assert said.exit_code in (1, 2)
    assert what in said.stderr
    assert fix in said.stderr.strip().split("\n")[-1]
    assert said.stdout == ""


def test_a_compound_key_is_a_json_array_however_it_is_spaced(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.cli.explaining import entity_named
    from penstock.errors import PenstockError
    from penstock.examples.flights import Path as Route

    names = ['["1","11"]', '["11","1"]']
    known: Any = SimpleNamespace(names=names, number={name: i for i, name in enumerate(names)})
    assert entity_named(view_of(Route), known, '[ "11", "1" ]') == '["11","1"]'
    for wrong in ("11", '["11"', "11,1"):
        with pytest.raises(PenstockError, match="no JSON array") as caught:
            entity_named(view_of(Route), known, wrong)
        assert '["1","11"]' in caught.value.fix


def test_the_street_is_what_the_tests_think(street: Path) -> None:
    assert event_of(type(ask("q", 0))) in PROJECT.events
    assert view_of(Shop).key == "shop"
