"""`penstock drift compare` says whether a file has drifted from another, for people, programs and pipelines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import penstock as ps

from .conftest import Cli


@pytest.fixture
def files(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    at = pd.date_range("2026-01-01", periods=3_000, freq="h")
    then = pd.DataFrame({"at": at, "amount": rng.gamma(2, 50, 3_000).round(2), "country": rng.choice(["DE", "FR"], 3_000)})
    then.to_parquet(tmp_path / "then.parquet")
    then.sample(900, random_state=1).sort_values("at").to_csv(tmp_path / "same.csv", index=False)
    then.assign(amount=then["amount"] + 40).to_csv(tmp_path / "moved.csv", index=False)
    return tmp_path


def test_no_drift_is_exit_code_0_drift_1_and_what_cannot_be_said_2(cli: Cli, files: Path) -> None:
    quiet = cli("drift", "compare", "then.parquet", "same.csv")
    assert quiet.exit_code == 0 and quiet.stdout.startswith("No drift in 2 columns (3,000 rows in the reference, 900 now)\n")
    loud = cli("drift", "compare", "then.parquet", "moved.csv")
    assert loud.exit_code == 1 and "drift in 1 of 2 columns: amount" in loud.stderr and "--html drift.html" in loud.stderr
    assert "unknown  at" in loud.stdout and "Traceback" not in loud.stderr
    assert cli("drift", "compare", "then.parquet", "moved.csv", "--floor", "0.9").exit_code == 0
    assert cli("drift", "compare", "then.parquet", "moved.csv", "--column", "country").exit_code == 0
    assert cli("drift", "compare", "then.parquet", "same.csv", "--like", "at", "--multivariate").exit_code == 0
    unknown = cli("drift", "compare", "then.parquet", "same.csv", "--column", "at")
    assert unknown.exit_code == 2 and "nothing could be compared: times move by themselves" in unknown.stderr


def test_the_json_is_what_python_says(cli: Cli, files: Path) -> None:
    ran = cli("drift", "compare", "then.parquet", "moved.csv", "--json")
    assert ran.exit_code == 1 and json.loads(ran.stderr)["type"] == "error"
    said = json.loads(ran.stdout)
    truth = json.loads(ps.drift.compare(files / "then.parquet", files / "moved.csv").to_json())
    assert said == truth | {"bad_cells": {"reference": [], "current": []}}


def test_the_page_is_written_and_bad_files_are_told(cli: Cli, files: Path) -> None:
    ran = cli("drift", "compare", "then.parquet", "moved.csv", "--html", "drift.html")
    assert "-> open drift.html" in ran.stderr and "<svg" in (files / "drift.html").read_text(encoding="utf-8")
    (files / "bad.csv").write_text("amount,country\n" + "1,DE\n" * 40 + "oops,DE\n")
    ran = cli("drift", "compare", "then.parquet", "bad.csv")
    assert "current, amount: 1 cell no number, counted as missing (row 41: 'oops')" in ran.stderr
    for words, said in {
        ("then.parquet", "none.csv"): "there is no file none.csv",
        ("then.parquet", "drift.html"): "drift.html is neither .csv nor .parquet",
        ("then.parquet", "same.csv", "--like", "hour"): "neither table has a column 'hour'",
        ("then.parquet", "same.csv", "--alpha", "7"): "shares lie between 0 and 1",
        ("then.parquet", "same.csv", "--html", "no/drift.html"): "no/drift.html cannot be written",
    }.items():
        ran = cli("drift", "compare", *words)
        assert ran.exit_code == 2 and said in ran.stderr and "Traceback" not in ran.stderr
