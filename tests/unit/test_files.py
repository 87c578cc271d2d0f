"""Files of events: every row that fits is read in order of time, every other one is reported with its place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import DefinitionError
from penstock.event import Event
from penstock.files import EventFile, in_folder, merged, refusals
from penstock.project import load

PROJECT = load("penstock.examples.flights")
NOW = 1_700_000_000.0


def event(topic: str) -> Event:
    return next(e for e in PROJECT.events if e.topic == topic)


def values(file: EventFile) -> list[dict[str, Any]]:
    return [json.loads(value) for _, value, _ in file.inspect(NOW).records()]


def reasons(file: EventFile) -> list[tuple[int, str, str]]:
    return [(number, refusal.reason, str(refusal)) for number, refusal in file.inspect(NOW).refused]


WEATHER = {"origin": "JFK", "temp": 39.02, "observed_at": "2013-01-01T07:00:00Z"}
DEPARTED = {"flight_id": "F1", "origin": "JFK", "delay": 2.5, "late": False, "departed_at": "2013-01-01T10:17:00Z"}


def test_json_lines_are_taken_byte_for_byte_and_blank_ones_are_none(tmp_path: Path) -> None:
    line = b'{"origin":  "JFK", "observed_at": "2013-01-01T07:00:00Z", "colour": "blue"}'
    path = tmp_path / "weather.jsonl"
    path.write_bytes(b"\n" + line + b"\r\n\n")
    file = EventFile(path, event("weather"))
    assert [(key, value) for key, value, _ in file.inspect(NOW).records()] == [(b"JFK", line)]


def test_a_file_out_of_order_is_sorted_and_rows_of_one_time_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "weather.jsonl"
    rows = [{**WEATHER, "observed_at": f"2013-01-0{day}T00:00:00Z", "temp": n} for n, day in enumerate((3, 1, 2, 1))]
    path.write_text("\n".join(map(json.dumps, rows)))
    file = EventFile(path, event("weather"))
    assert not file.inspect(NOW).ordered
    assert [row["temp"] for row in values(file)] == [1, 3, 2, 0]


def test_every_bad_line_is_reported_with_its_number_and_cause_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "weather.jsonl"
    bad = [b"{", b'{"origin": "JFK"}', json.dumps({**WEATHER, "temp": "warm"}).encode(), b'{"origin": "\xff"}']
    bad.append(json.dumps({**WEATHER, "observed_at": "2099-01-01T00:00:00Z"}).encode())
    bad.append(json.dumps({**WEATHER, "observed_at": "2013-01-01T07:00:00"}).encode())
    path.write_bytes(b"\n".join([json.dumps(WEATHER).encode(), *bad, json.dumps(WEATHER).encode()]))
    file = EventFile(path, event("weather"))
    found = file.inspect(NOW)
    assert [(number, refusal.reason) for number, refusal in found.refused] == [
        (2, "decode"),
        (3, "schema"),
        (4, "schema"),
        (5, "decode"),
        (6, "future"),
        (7, "schema"),
    ]
    assert found.rows == 8
    assert len(list(found.records())) == 2


CSV = """flight_id,origin,delay,late,departed_at,note
F1,JFK,2.5,0,2013-01-01T10:17:00+00:00,"a, b"
F2,EWR,NA,TRUE,2013-01-01 10:18:00Z,
F3,LGA,-3,maybe,2013-01-01T10:19:00Z,
F4,LGA,1e999,no,2013-01-01T10:19:00Z,
F5,LGA,7,yes,2013-01-01T10:20:00,
F6,LGA,7,yes
,LGA,7,yes,2013-01-01T10:21:00Z,
F8,LGA,7,t,2013-01-01T12:21:00+02:00,
"""


def test_csv_cells_become_typed_values_or_a_reason_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "departed.csv"
    path.write_text(CSV)
    file = EventFile(path, event("departed"))
    assert [(row["flight_id"], row["delay"], row["late"]) for row in values(file)] == [("F1", 2.5, False), ("F8", 7.0, True)]
    found = {number: words for number, _, words in reasons(file)}
    assert list(found) == [3, 4, 5, 6, 7, 8]
    assert found[3] == "column delay is empty"
    assert "'maybe' is no truth value" in found[4]
    assert "not finite" in found[5]
    assert "no time zone" in found[6]
    assert "--utc" in found[6]
    assert found[7] == "4 cells, the first line has 6"
    assert file.inspect(NOW).ignored == ("note",)


def test_times_without_a_zone_are_utc_when_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "departed.csv"
    path.write_text(CSV)
    assert [row["flight_id"] for row in values(EventFile(path, event("departed"), utc=True))] == ["F1", "F5", "F8"]


def test_a_country_called_na_is_no_missing_value(tmp_path: Path) -> None:
    path = tmp_path / "weather.csv"
    path.write_text("origin,temp,observed_at\nNA,NA,2013-01-01T07:00:00Z\n")
    assert values(EventFile(path, event("weather"))) == [{"origin": "NA", "temp": None, "observed_at": "2013-01-01T07:00:00Z"}]


def test_packed_files_and_files_from_spreadsheets_are_read(tmp_path: Path) -> None:
    text = "\ufefforigin,temp,observed_at\nJFK,1,2013-01-01T07:00:00Z\n"
    path = tmp_path / "weather.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert [row["origin"] for row in values(EventFile(path, event("weather")))] == ["JFK"]


def test_json_lines_whose_times_have_no_zone_are_utc_when_that_is_said_and_else_stand_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "weather.jsonl"
    zoned = b'{"origin":  "JFK", "observed_at": "2013-01-01T07:00:00+01:00"}'
    path.write_bytes(b'{"origin": "JFK", "observed_at": "2013-01-01T05:00:00", "note": 1}\n' + zoned + b"\n{oops\n")
    found = EventFile(path, event("weather"), utc=True).inspect(NOW)
    assert [(number, refusal.reason) for number, refusal in found.refused] == [(3, "decode")]
    first, second = found.records()
    assert json.loads(first[1]) == {"origin": "JFK", "observed_at": "2013-01-01T05:00:00Z", "note": 1}
    assert second[1] == zoned
    assert len(EventFile(path, event("weather")).inspect(NOW).bad) == 2


def test_the_files_of_a_folder_are_merged_in_order_of_time_and_a_missing_one_is_told(tmp_path: Path) -> None:
    kinds = [event("weather"), event("departed")]
    (tmp_path / "weather.csv").write_text("origin,observed_at\nJFK,2013-01-01T12:00:00Z\nEWR,2013-01-01T09:00:00Z\n")
    with pytest.raises(DefinitionError, match="no file for the event Departed") as missing:
        in_folder(tmp_path, kinds)
    with pytest.raises(DefinitionError, match="nowhere is no folder"):
        in_folder(tmp_path / "nowhere", kinds)
    assert "departed.jsonl" in missing.value.fix
    (tmp_path / "departed.jsonl.gz").write_bytes(gzip.compress(json.dumps(DEPARTED).encode()))
    found = [file.inspect(NOW) for file in in_folder(tmp_path, kinds)]
    assert [(kind.topic, record[0]) for kind, record in merged(found)] == [
        ("weather", b"EWR"),
        ("departed", b"JFK"),
        ("weather", b"JFK"),
    ]


def test_people_are_told_the_first_rows_that_are_left_out_and_how_many_more(tmp_path: Path) -> None:
    path = tmp_path / "weather.csv"
    path.write_text("origin,observed_at,colour\n" + "JFK,never,blue\n" * 12)
    found = EventFile(path, event("weather")).inspect(NOW)
    lines = list(found.lines())
    assert lines[0].startswith("left out  weather.csv line 2: schema: column observed_at: 'never' is no time")
    assert lines[10:] == ["left out  ... and 2 more of weather.csv", "weather.csv: not fields of Weather, so not sent: colour"]
    assert len(refusals([found])) == 12
    assert refusals([found])[0]["row"] == 2


def test_text_that_is_no_utf8_is_a_bad_row_and_not_the_end(tmp_path: Path) -> None:
    path = tmp_path / "weather.csv"
    path.write_bytes(b"origin,temp,observed_at\n\xff\xfe,1,2013-01-01T07:00:00Z\nJFK,1,2013-01-01T07:00:00Z\n")
    file = EventFile(path, event("weather"))
    assert [(number, reason) for number, reason, _ in reasons(file)] == [(2, "decode")]
    assert len(values(file)) == 1


def test_parquet_is_read_with_its_times_and_missing_numbers(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {
            "origin": ["JFK", "EWR", None],
            "temp": [1.5, float("nan"), 2.0],
            "observed_at": pd.to_datetime(["2013-01-01T07:00:00.000001Z"] * 3),
            "extra": [1, 2, 3],
        }
    )
    path = tmp_path / "weather.parquet"
    frame.to_parquet(path)
    file = EventFile(path, event("weather"))
    assert [(row["origin"], row["temp"]) for row in values(file)] == [("JFK", 1.5), ("EWR", None)]
    assert next(time for _, _, time in file.inspect(NOW).records()) == 1357023600000001
    assert [number for number, _, _ in reasons(file)] == [3]
    assert file.inspect(NOW).ignored == ("extra",)


def test_parquet_times_without_a_zone_are_refused_unless_they_are_said_to_be_utc(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = tmp_path / "weather.parquet"
    pd.DataFrame({"origin": ["JFK"], "observed_at": pd.to_datetime(["2013-01-01T07:00:00"])}).to_parquet(path)
    assert "no time zone" in reasons(EventFile(path, event("weather")))[0][2]
    assert values(EventFile(path, event("weather"), utc=True))[0]["observed_at"] == "2013-01-01T07:00:00Z"


@pytest.mark.parametrize(
    ("name", "words"), [("weather.csv", "has no column observed_at"), ("weather.parquet", "no Parquet file")]
)
def test_a_file_that_cannot_hold_the_event_is_refused_as_a_whole(tmp_path: Path, name: str, words: str) -> None:
    path = tmp_path / name
    path.write_text("origin,temp\nJFK,1\n")
    with pytest.raises(DefinitionError, match=words):
        EventFile(path, event("weather")).inspect(NOW)


def test_cells_that_stand_between_other_marks_than_commas_are_told(tmp_path: Path) -> None:
    path = tmp_path / "weather.csv"
    path.write_text("origin;observed_at\nJFK;2013-01-01T07:00:00Z\n")
    with pytest.raises(DefinitionError, match="between ';', not between commas") as raised:
        EventFile(path, event("weather")).inspect(NOW)
    assert "sep=';'" in raised.value.fix


def test_a_file_that_is_not_there_or_of_an_unknown_kind_is_refused_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "weather.csv").touch()
    with pytest.raises(DefinitionError, match="no such file") as missing:
        EventFile(tmp_path / "wether.csv", event("weather"))
    assert "weather.csv" in missing.value.fix
    (tmp_path / "weather.xlsx").touch()
    with pytest.raises(DefinitionError, match=r"no \.csv"):
        EventFile(tmp_path / "weather.xlsx", event("weather"))


def test_columns_that_are_optional_may_be_absent_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "departed.jsonl"
    path.write_text(json.dumps(DEPARTED))
    assert values(EventFile(path, event("departed"))) == [DEPARTED]
    table = tmp_path / "weather.csv"
    table.write_text("observed_at,origin\n2013-01-01T07:00:00Z,JFK\n")
    assert values(EventFile(table, event("weather"))) == [{"origin": "JFK", "observed_at": "2013-01-01T07:00:00Z"}]
