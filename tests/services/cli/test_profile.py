"""`penstock profile` describes tables and files; its page stands by itself; what is wrong is told in words."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.pages import read

import penstock as ps
from penstock.log.memory import MemoryLog
from penstock.profiling.page import page

from .. import test_quality
from .conftest import Cli


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "amount": rng.gamma(2, 50, 3000).round(2),
            "country": [None if i % 10 == 3 else "DE" if i % 3 else "FR" for i in range(3000)],
            "nothing": None,
            "same": 7,
            "<script>alert(1)</script>": rng.choice(["<b>", "x" * 65_536, "日本", "", "\x00"], 3000),
            "fraud": rng.random(3000) < 0.1,
            "at": [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=i) for i in range(3000)],
        }
    )


def test_a_file_is_described_as_the_frame_in_it(cli: Cli, frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_parquet(tmp_path / "data.parquet")
    ran = cli("profile", "--file", str(tmp_path / "data.parquet"), "--label", "fraud", "--json")
    assert ran.exit_code == 0, ran.stderr
    said, truth = json.loads(ran.stdout), ps.profile(frame, label="fraud").described()
    assert (said["rows"], list(said["columns"])) == (3000, list(truth))
    for name, column in truth.items():
        found = said["columns"][name]
        if column.kind != "empty":
            assert (found["kind"], found["missing"], found["distinct"], found["mean"], found["correlation"], found["counts"]) == (
                column.kind, column.missing, column.distinct, column.mean, column.correlation, column.counts,
            )  # fmt: skip
    frame.drop(columns="<script>alert(1)</script>").to_csv(tmp_path / "data.csv", index=False)
    ran = cli("profile", "--file", str(tmp_path / "data.csv"))
    assert ran.exit_code == 0 and "3,000 rows, 6 columns" in ran.stdout and re.search(r"amount +float +0 %", ran.stdout)


def test_any_version_of_a_table_is_described(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    monkeypatch.setenv("PENSTOCK_DATA", str(tmp_path))
    for start in (0, 10):
        write_deltalake(
            str(tmp_path / "tables/payments"), pa.table({"amount": [float(start + i) for i in range(10)]}), mode="append"
        )
    newest, oldest = (cli("profile", "payments", *more, "--json") for more in ((), ("--version", "0")))
    assert [json.loads(ran.stdout)["columns"]["amount"]["greatest"] for ran in (newest, oldest)] == [19.0, 9.0]
    assert [json.loads(ran.stdout)["facts"] for ran in (newest, oldest)] == [{"version": "1"}, {"version": "0"}]
    wrong = cli("profile", "payments", "--version", "7")
    assert wrong.exit_code == 1 and wrong.stderr == (
        "table payments has versions 0 to 1, not 7\n-> choose another:  penstock tables history payments\n"
    )
    wrong = cli("profile", "paymnets")
    assert wrong.exit_code == 1 and "there is no table paymnets" in wrong.stderr and "-> did you mean payments?" in wrong.stderr


def test_what_cannot_be_described_is_told_in_words(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("not parquet")
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "empty.csv").write_text("")
    for words, said in {
        (): "name a table, or a file\n-> penstock profile TABLE",
        ("--file", "none.csv"): "there is no file none.csv",
        ("--file", str(tmp_path / "a.parquet")): "a.parquet cannot be read",
        ("--file", str(tmp_path / "a.txt")): "a.txt is neither .csv nor .parquet",
        ("--file", str(tmp_path / "empty.csv")): "empty.csv cannot be read: No columns to parse",
    }.items():
        ran = cli("profile", *words)
        assert ran.exit_code == 1 and said in ran.stderr and "Traceback" not in ran.stderr, ran.stderr


def test_the_page_stands_by_itself_and_shows_nothing_as_markup(frame: pd.DataFrame) -> None:
    found = ps.profile(frame, label="fraud")
    text = page("payments & more", found.rows, found.described(), [("version", "3")], "fraud")
    reader = read(text)
    assert not reader.tags & {"script", "img", "link", "iframe", "b" if "<b>x" in text else "script"}
    assert all(link.startswith("#c") for link in reader.links) and len(reader.links) == len(frame.columns)
    assert "http" not in text and "@import" not in text and "url(" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text and "payments &amp; more" in text
    assert max(map(len, re.findall(r">([^<]*)<", text.partition("</style>")[2]))) < 500
    assert text == page("payments & more", found.rows, found.described(), [("version", "3")], "fraud")


def test_a_page_of_nothing_is_a_page() -> None:
    for empty in (pd.DataFrame(), pd.DataFrame({"a": np.empty(0)}), pd.DataFrame({"a": [np.inf, -np.inf]})):
        found = ps.profile(empty)
        read(page("nothing", found.rows, found.described()))


def test_days_of_quality_are_shown(cli: Cli, log: MemoryLog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def staged() -> None:
        world = test_quality.World(log=log)
        await log.create(world.topics.all())
        rides = [
            test_quality.ride(
                i, test_quality.START + timedelta(hours=i), fare=1000.0 if i == 3 else 1.0, passengers=9 if i == 5 else 1
            )
            for i in range(30)
        ]
        await world.publish(rides)
        await world.settle()

    asyncio.run(staged())
    project = tmp_path / "cabs.py"
    project.write_text("from tests.services.test_quality import project\n")
    ran = cli("quality", "--project", str(project))
    assert ran.exit_code == 0, ran.stderr
    assert re.search(r"rides +2026-03-01 +24 +91\.66 % +100 % +100 % +100 % +1 +2", ran.stdout), ran.stdout
    assert "passengers between 1 and 8, such as rides/0 at 5: Ride.passengers is 9; expected between 1 and 8" in ran.stderr
    ((day,),) = [said["days"] for said in [cli.json("quality", "rides", "--project", str(project))]]
    assert (day["id"], day["refused"]) == ("rides/2026-03-01", {"expectation": 1})
    wrong = cli("quality", "ridse", "--project", str(project))
    assert wrong.exit_code == 1 and wrong.stderr == "cabs has no event ridse\n-> did you mean rides?\n"


def test_tables_are_found_where_the_settings_say(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    write_deltalake(str(here / "lake/payments"), pa.table({"amount": [1.0]}))
    monkeypatch.setenv("PENSTOCK_TABLES", "lake")
    assert cli.json("profile", "payments")["rows"] == 1


def test_a_bad_cell_is_told_and_leaves_its_column_a_column_of_numbers(cli: Cli, here: Path) -> None:
    rows = [f"{n},{'x' if n == 5 else n},{'a' if n % 3 else n},{n}.5" for n in range(40)]
    (here / "data.csv").write_text("\n".join(["clean,one_bad,codes,floats", *rows]))
    said = cli("profile", "--file", "data.csv")
    assert "one_bad: 1 cell no number, counted as missing (row 6: 'x')" in said.stderr
    found = cli.json("profile", "--file", "data.csv")
    kinds = {name: (column["kind"], column["missing"]) for name, column in found["columns"].items()}
    assert kinds == {"clean": ("int", 0), "one_bad": ("int", 1), "codes": ("text", 0), "floats": ("float", 0)}
    assert found["bad_cells"] == [{"column": "one_bad", "cells": 1, "first": {"6": "x"}}]


def test_an_estimate_of_distinct_values_is_never_above_what_there_is(cli: Cli, here: Path) -> None:
    for seed in range(4):
        (here / "ids.csv").write_text("\n".join(["id", *(f"id-{seed}-{n}" for n in range(5_000))]))
        found = cli.json("profile", "--file", "ids.csv")["columns"]["id"]
        assert not found["distinct_exact"] and 4_500 < found["distinct"] <= 5_000
