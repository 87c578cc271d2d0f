"""tables: the offline tables on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.services.crew import PASSED, ROWS, Harbour, arrival, played, row

from penstock.log.memory import MemoryLog

if TYPE_CHECKING:
    from tests.services.cli.conftest import Cli


@pytest.fixture
def harbour(here: Path, log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> Harbour:
    """Thirty arrivals in three commits and ten rows, in the folder where `penstock` looks, and the log that has them."""
    monkeypatch.setenv("PENSTOCK_PROJECT", "tests.services.crew")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "in-memory:1")
    made = Harbour(here / ".penstock" / "tables", 1, log)

    async def story() -> None:
        await made.open()
        for first in (0, 10, 20):
            await made.kept([arrival(n) for n in range(first, first + 10)])
        await made.kept([row(n) for n in range(10)])

    played(story())
    return made


def test_list_shows_every_table_and_who_pins_it(cli: Cli, harbour: Harbour) -> None:
    said = cli.json("tables", "list")
    assert [(t["table"], t["rows"], t["version"]) for t in said["tables"]] == [
        ("arrivals", 30, 3), ("arrivals.dlq", 0, 0), (PASSED, 0, 0), (ROWS, 10, 1),
    ]  # fmt: skip
    folder = harbour.folder / "datasets"
    folder.mkdir()
    (folder / "spring.json").write_text(json.dumps({"tables": [{"name": "arrivals", "version": 2}]}))
    assert cli.json("tables", "list")["tables"][0]["pinned_by"] == ["spring"]
    shown = cli("tables", "list").stdout
    assert "spring" in shown and "4 tables in" in shown


def test_listing_tables_does_not_wait_for_pandas(harbour: Harbour) -> None:
    said = "import sys; from penstock.offline import Tables; t = Tables(sys.argv[1]).table('arrivals'); "
    said += "print(t.rows, t.bytes > 0, len(t.files), t.positions(), 'pandas' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", said, str(harbour.folder)], capture_output=True, text=True, check=True)
    assert ran.stdout == "30 True 3 {0: 30} False\n"


def test_show_is_the_newest_rows_now_or_at_a_version_or_a_moment(cli: Cli, harbour: Harbour) -> None:
    now = cli.json("tables", "show", "arrivals", "--rows", "3")
    assert [r["arrival_id"] for r in now["newest"]] == ["a29", "a28", "a27"] and now["positions"] == {"0": 30}
    then = cli.json("tables", "show", "arrivals", "--version", "2")
    assert (then["rows"], then["newest"][0]["arrival_id"], then["columns"]["berth"]) == (20, "a19", "int64")
    by_time = cli.json("tables", "show", "arrivals", "--as-of", then["committed"])
    assert by_time["version"] == 2
    text = cli("tables", "show", "arrivals", "--rows", "1").stdout
    assert "version 3" in text and "arrival_id=a29" in text and "berth=-" in text and "topic_id=" not in text


def test_history_lists_versions_newest_first(cli: Cli, harbour: Harbour) -> None:
    said = cli.json("tables", "history", "arrivals", "-n", "3")["versions"]
    assert [(v["version"], v["operation"], v["rows"]) for v in said] == [(3, "WRITE", 10), (2, "WRITE", 10), (1, "WRITE", 10)]


def test_restore_compact_and_vacuum_work_on_one_table_or_on_all(cli: Cli, harbour: Harbour) -> None:
    assert cli.json("tables", "restore", "arrivals", "--version", "2") == {
        "table": "arrivals", "version": 4, "restored": 2, "was": 3, "rows": 20, "behind": 10,
    }  # fmt: skip
    assert [done["table"] for done in cli.lines("tables", "compact")] == ["arrivals", "arrivals.dlq", PASSED, ROWS]
    assert cli.json("tables", "vacuum", "arrivals", "--older-than", "1h")["deleted"] == []
    assert "1 file, " in cli("tables", "compact", "arrivals").stdout


def test_verify_says_that_each_record_is_there_once_or_which_is_not(cli: Cli, harbour: Harbour) -> None:
    said = cli.json("tables", "verify")
    found = [(p["table"], p["rows"], p["lost"]) for p in said["partitions"]]
    assert said["right"] and found == [("arrivals", 30, 0), ("arrivals.dlq", 0, 0), (PASSED, 0, 0), (ROWS, 10, 0)]
    harbour.tables.table("arrivals").delta.delete("offset = 4")
    wrong = cli("tables", "verify", "arrivals")
    assert wrong.exit_code == 1 and "1 lost, 0 doubled; offsets 4" in wrong.stderr and "tables restore" in wrong.stderr


def test_without_a_broker_verify_says_what_it_cannot_tell(cli: Cli, harbour: Harbour, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS")
    said = cli("tables", "verify", "arrivals")
    assert said.exit_code == 0 and "no broker" in said.stderr and "each record once" in said.stdout


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (("show", "arrival"), "there is no table arrival", "did you mean arrivals?"),
        (("show", "arrivals", "--version", "9"), "versions 0 to 3, not 9", "penstock tables history arrivals"),
        (("show", "arrivals", "--as-of", "2001-01-01T00:00Z"), "not known before", "penstock tables history arrivals"),
        (("show", "arrivals", "--as-of", "yesterday"), "write it as 2026-02-01T12:00Z", "--help"),
        (("show", "arrivals", "--as-of", "2026-02-01"), "no time zone", "2026-02-01T12:00Z"),
        (("show", "arrivals", "--version", "1", "--as-of", "2026-02-01T00:00Z"), "exclude each other", "--help"),
        (("vacuum", "--older-than", "5m"), "a writer may be at work", "--help"),
        (("vacuum", "--older-than", "old"), '"old" is not a length of time', '"7d"'),
        (("restore", "arrivals", "--version", "9"), "versions 0 to 3, not 9", "penstock tables history arrivals"),
    ],
)
def test_wrong_use_is_said_with_what_to_type(cli: Cli, harbour: Harbour, words: tuple[str, ...], what: str, fix: str) -> None:
    said = cli("tables", *words)
    assert said.exit_code in (1, 2) and what in said.stderr and fix in said.stderr and "Traceback" not in said.stderr


def test_no_tables_yet_is_no_error(cli: Cli, here: Path) -> None:
    assert cli.json("tables", "list")["tables"] == []
    assert "0 tables in" in cli("tables", "list").stdout


def test_a_place_that_cannot_be_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_TABLES", "gs://lake/x")
    said = cli("tables", "list")
    assert said.exit_code == 2 and "cannot be in gs://lake/x" in said.stderr and "PENSTOCK_TABLES" in said.stderr
