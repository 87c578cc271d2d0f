"""The harness of `make bench`: what it runs, keeps and writes."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from rich.console import Console
from tests.benchmarks import bench
from tests.benchmarks.bench import Bench, Report

TINY = """
from tests.benchmarks.figure import Figure

def run(quick):
    yield Figure(name="sums <fast>", unit="sums/s", better="higher", ours=3e4, beside={"bare": 2e4, "peer": 1e4},
                 recorded={"other": 5.0}, goal=1e5, note="no other beside it")
    yield Figure(name="quick" if quick else "slow", unit="s", better="lower", ours=0.5, beside={"bare": 0.25}, goal_ratio=3)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules can be benchmarks."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str, deadline: float = 60.0) -> tuple[Report, str]:
    (folder / "tiny.py").write_text(body)
    monkeypatch.setattr(bench, "BENCHES", {"tiny": Bench("tiny", deadline)})
    said = io.StringIO()
    return bench.report(["tiny"], True, folder / "out", Console(file=said, width=160)), said.getvalue()


def test_a_benchmark_is_shown_as_a_table_and_written_as_json_and_as_a_picture(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, table = report(monkeypatch, here, TINY)
    for words in ("sums <fast>", "30,000 sums/s", "bare 20,000", "1.50", ">= 100,000", "missed", "no other beside it", "<= 0.75"):
        assert words in table
    data, picture = bench.written(found, here / "out")
    kept = msgspec.json.decode(data.read_bytes())
    assert kept["quick"] and kept["machine"]["versions"]["numpy"]
    (result,) = kept["results"]
    assert not result["error"] and result["before"]["speed"] > 0
    assert [(f["name"], f["ratio"], f["met"]) for f in result["figures"]] == [("sums <fast>", 1.5, False), ("quick", 2.0, True)]
    drawn = [element.text for element in ElementTree.parse(picture).iter() if element.text]
    assert {"tiny", "sums <fast>", "20,000  bare", "5  other, recorded"} <= set(drawn)
    assert "30,000 sums/s (goal 100,000: missed)" in drawn


def test_what_was_measured_before_a_benchmark_broke_is_kept_and_the_rest_is_said_to_be_missing(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, table = report(monkeypatch, here, TINY + "    raise OSError('the disk is full')\n")
    (result,) = found.results
    assert len(result.figures) == 2
    assert "the disk is full" in result.error and "tiny.log" in result.error
    assert "the disk is full" in table


def test_a_benchmark_that_does_not_end_is_ended(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "import threading\ndef run(quick):\n    threading.Event().wait()\n    yield\n"
    found, _ = report(monkeypatch, here, body, deadline=0.5)
    assert "not done after" in found.results[0].error
    data, picture = bench.written(found, here / "out")
    assert data.exists() and ElementTree.parse(picture)


def test_every_benchmark_named_is_there() -> None:
    folder = Path(bench.__file__).parent
    assert {each.module.rpartition(".")[2] for each in bench.BENCHES.values()} == {p.stem for p in folder.glob("bench_*.py")}


@pytest.mark.slow
@pytest.mark.parametrize("name", bench.BENCHES)
def test_every_benchmark_runs_on_small_sizes(name: str, tmp_path: Path) -> None:
    found = bench.measured(name, bench.BENCHES[name], True, tmp_path)
    assert not found.error
    assert found.figures
