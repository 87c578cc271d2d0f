"""Scoring in bulk gives each row one score, the one that the stream gave, whatever the source and however it is interrupted."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.services.air import START, fitted, learnt
from tests.services.chargebacks import Machine, fraud, payment, shop

import penstock as ps
from penstock.errors import DefinitionError, PenstockError
from penstock.log import Send
from penstock.offline import Tables
from penstock.records import Artefact, Candidate, Decision
from penstock.scoring import bulk, lines
from penstock.scoring.bulk import Job
from penstock.scoring.columnar import table_of
from penstock.scoring.decisions import held, keep
from penstock.scoring.files import file_of
from penstock.scoring.loading import load_model
from penstock.scoring.sinks import LINEAGE, Sink, sink_of
from penstock.scoring.versions import Versions
from penstock.snapshot import dump_river

ROWS = 1200


class Shop:
    """A shop whose payments were scored by the stream, and archived; what it left is in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machine = Machine(shop, folder)
        artefacts, topic = self.machine.embedded.artefacts, self.machine.embedded.topics.models
        boosted = artefacts.put(fitted(len(fraud.inputs), 0)[1], "onnx")
        online = artefacts.put(dump_river(learnt(fraud.inputs)), "river")
        drawn = np.random.default_rng(1)
        said = [
            payment(n, n / 100, float(drawn.lognormal(3, 2)), f"c{drawn.integers(40)}")
            | {"offset": None if n % 3 else float(drawn.normal())}
            for n in range(ROWS)
        ]
        decisions = [
            self.decided("champion", "v1", boosted),
            self.decided("online", "online-1", online, {"batch": 0.4, "online": 0.6}),
        ]

        async def run() -> None:
            embedded = self.machine.embedded
            await embedded.start()
            await embedded.log.send([Send(topic, k, v) for k, v in decisions])
            await self.machine.publish(said)
            keep(artefacts.root, topic, (await held(embedded.log, topic))[0])

        asyncio.run(run())
        self.tables = Tables(folder / "tables")
        found = self.tables.table("shop.predictions.fraud").arrow().to_pandas().sort_values("id", ignore_index=True)
        self.answers = found

    def decided(
        self, alias: str, version: str, artefact: Artefact, weights: dict[str, float] | None = None
    ) -> tuple[bytes, bytes]:
        candidate = Candidate(
            id=version, model="fraud", version=version, kind="full", at=START, artefact=artefact, inputs=list(fraud.inputs),
            weights=weights or {}, edges={}, reference={}, metrics={}, run="r", fingerprint="f",
        )  # fmt: skip
        decision = Decision(
            id=version, model="fraud", kind=alias, version=version, at=START, actor="registry", reason="", share=1.0,
            expected="", evidence={}, candidate=candidate,
        )  # fmt: skip
        return f"fraud/{alias}".encode(), msgspec.json.encode(decision)

    def versions(self, reference: str = "fraud") -> Versions:
        return load_model(reference, project=shop, data=self.folder)._versions

    def job(self, source: Any, reference: str = "fraud") -> Job:
        versions = self.versions(reference)
        return Job.of(versions.charge(), versions.artefacts, source, shop)

    def inputs(self) -> pd.DataFrame:
        return self.answers[["id", *fraud.inputs]]


@pytest.fixture(scope="module")
def sold(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("sold"))


def scored(job: Job, out: Path, workers: int = 1) -> pd.DataFrame:
    sink = sink_of(str(out), job.id, job.lineage)
    done = bulk.run(job, sink, workers)
    found = pa.Table.from_batches(list(sink.batches(None))).to_pandas()
    assert done.rows == len(found) and done.bad == int(found["error"].notna().sum())
    return found


class TestTheSameScores:
    def test_as_the_stream_gave_its_rows(self, sold: Shop, tmp_path: Path) -> None:
        for table in ("shop.rows.payments", "shop.predictions.fraud"):
            found = scored(sold.job(table_of(sold.tables, table, fraud)), tmp_path / f"{table}.scores").sort_values("id")
            assert found["id"].tolist() == sold.answers["id"].tolist()
            assert found["score"].tolist() == sold.answers["score"].tolist(), "to the last bit"
            assert set(found["version"]) == {"v1"}

    def test_by_each_version_alone(self, sold: Shop, tmp_path: Path) -> None:
        given = [json.loads(text) for text in sold.answers["scores"]]
        for reference, version in (("fraud@champion", "v1"), ("fraud@online", "online-1")):
            job = sold.job(table_of(sold.tables, "shop.rows.payments", fraud), reference)
            found = scored(job, tmp_path / version).sort_values("id")
            assert found["score"].tolist() == [scores[version] for scores in given]

    @pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
    def test_of_rows_in_a_file(self, sold: Shop, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lines, "BYTES", 20_000)
        path, out = tmp_path / f"rows.{kind}", tmp_path / "scores.parquet"
        written(sold.inputs(), path)
        source = file_of(path, fraud)
        assert len(source.parts) > 3
        found = scored(sold.job(source), out, 2 if kind == "csv" else 1)
        assert found["id"].tolist() == sold.answers["id"].tolist()
        assert found["score"].tolist() == sold.answers["score"].tolist()
        assert (found["row"] == np.arange(ROWS) + {"csv": 2}.get(kind, 1)).all()
        assert ps.load_model("fraud", project=shop, data=sold.folder).predict(sold.inputs()).tolist() == found["score"].tolist()


def written(frame: pd.DataFrame, path: Path) -> None:
    if path.suffix == ".parquet":
        frame.to_parquet(path, row_group_size=300)
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=True, double_precision=15)


class TestWhatIsInterrupted:
    @pytest.mark.parametrize("out", ["scores.parquet", "scores"])
    def test_goes_on_where_it_was_and_has_each_row_once(self, sold: Shop, tmp_path: Path, out: str) -> None:
        written(sold.inputs(), tmp_path / "rows.parquet")
        job, told = sold.job(file_of(tmp_path / "rows.parquet", fraud)), list[int]()
        sink = sink_of(str(tmp_path / out), job.id, job.lineage)

        class Killed(Exception):
            pass

        def told_once(size: int) -> None:
            told.append(size)
            raise Killed

        parts = len(job.source.parts)
        for n in range(parts):
            assert n == (0 if n == 0 else sink_of(str(tmp_path / out), job.id, job.lineage).begin())
            with pytest.raises(Killed):
                run_new(job, sink, told_once)
        done = bulk.run(job, sink)
        assert (done.rows, done.bad, done.again) == (ROWS, 0, parts)
        found = pa.Table.from_batches(list(sink.batches(None))).to_pandas()
        assert found.sort_values("row")["score"].tolist() == sold.answers["score"].tolist()
        assert bulk.run(job, sink).again == parts, "and once more changes nothing"

    def test_never_mixes_with_other_scores(self, sold: Shop, tmp_path: Path) -> None:
        written(sold.inputs(), tmp_path / "rows.csv")
        source = file_of(tmp_path / "rows.csv", fraud)
        for out in ("scores.parquet", "scores"):
            scored(sold.job(source), tmp_path / out)
            with pytest.raises(PenstockError, match="other scores"):
                scored(sold.job(source, "fraud@online"), tmp_path / out)
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "letter.txt").write_text("keep me")
        with pytest.raises(PenstockError, match="no table of scores"):
            scored(sold.job(source), tmp_path / "mine")

    def test_says_what_made_it(self, sold: Shop, tmp_path: Path) -> None:
        job = sold.job(table_of(sold.tables, "shop.rows.payments", fraud))
        scored(job, tmp_path / "scores.parquet")
        told = json.loads(pq.read_schema(tmp_path / "scores.parquet").metadata[LINEAGE.encode()])
        assert told == {**job.lineage, "job": job.id}
        assert [(m["version"], m["weight"]) for m in told["members"]] == [("v1", pytest.approx(0.4)), ("online-1", 0.6)]
        table = sold.tables.table("shop.rows.payments")
        assert told["source"] == {
            "table": "shop.rows.payments", "version": table.version, "topic_id": table.topic_id, "events": "payments",
        }  # fmt: skip
        assert told["definitions"] == shop.fingerprint


def run_new(job: Job, sink: Sink, told: Any) -> None:
    """As a new process would, which tells only of what it did itself."""
    there = sink.begin()
    skipped = iter(range(there))
    bulk.run(job, sink, told=lambda size: None if next(skipped, None) is not None else told(size))


class TestBadRows:
    BAD = (
        ("id,Payment.amount,offset,Card.payments_1h,Card.spend_24h,Card.surge", None),
        ("p1,1.5,,2,3,4", ""),
        ("p2,far,,2,3,4", "schema: Payment.amount: 'far' is no number"),
        ('"p,3",2.5,NA,nan,,4', ""),
        ("p4,1,2,3", "decode: 4 cells, the first line has 6"),
        ("", None),
        ('"p5\nand more",1,0.5,1,1,1', ""),
        ("p6,,1,1,1,1", "schema: Payment.amount is empty"),
        ("p7,1,inf,1,1,1", "schema: Payment.offset: inf is not finite"),
        ("p8,true, 7 ,1,1,1e999", "schema: Card.surge: 1e999 is not finite"),
    )

    def test_of_a_csv_file_are_told_with_their_line_and_counted(self, sold: Shop, tmp_path: Path) -> None:
        (tmp_path / "rows.csv").write_text("\n".join(line for line, _ in self.BAD))
        found = scored(sold.job(file_of(tmp_path / "rows.csv", fraud)), tmp_path / "scores.parquet")
        expected = [said for _, said in self.BAD if said is not None]
        assert found["error"].fillna("").tolist() == expected
        assert found["score"].isna().tolist() == [bool(said) for said in expected]
        assert found["row"].tolist() == [2, 3, 4, 5, 8, 9, 10, 11], "lines as an editor counts them"
        assert found["id"].tolist() == ["p1", "p2", "p,3", "p4", "p5\nand more", "p6", "p7", "p8"]

    def test_of_a_json_file_too(self, sold: Shop, tmp_path: Path) -> None:
        good: dict[str, Any] = dict.fromkeys(fraud.inputs, 1.5) | {"payment_id": "p1"}
        lacking = {name: value for name, value in good.items() if name != "Card.surge"}
        rows = [
            json.dumps(good), json.dumps(good | {"Card.surge": None}), json.dumps(good | {"Payment.amount": None}),
            json.dumps(lacking), "{", "", json.dumps(good | {"Payment.amount": "1"}), "[]",
            json.dumps(good | {"Card.surge": True}),
        ]  # fmt: skip
        (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
        found = scored(sold.job(file_of(tmp_path / "rows.jsonl", fraud)), tmp_path / "scores")
        assert found["row"].tolist() == [1, 2, 3, 4, 5, 7, 8, 9]
        assert found["error"].notna().tolist() == [False, False, True, True, True, True, True, False]
        assert "Card.surge" in found["error"][3] and found["error"][4].startswith("decode")

    @pytest.mark.parametrize(
        "name", ["rows.xlsx", "rows.csv.gz", "gone.csv", "empty.csv", "no.parquet", "text.parquet", "short.csv"]
    )
    def test_a_file_that_cannot_be_scored_is_refused_with_what_to_do(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        if name == "text.parquet":
            pd.DataFrame({name: ["x"] for name in fraud.inputs}).to_parquet(path)
        elif name != "gone.csv":
            path.write_text({"empty.csv": "", "short.csv": "amount,offset\n1,2\n"}.get(name, "x"))
        with pytest.raises(DefinitionError) as caught:
            file_of(path, fraud)
        assert caught.value.fix

    def test_a_table_of_events_alone_has_no_features(self, sold: Shop) -> None:
        with pytest.raises(DefinitionError, match=r"no Card\.payments_1h") as caught:
            table_of(sold.tables, "payments", fraud)
        assert caught.value.fix == "--table shop.rows.payments"


class TestPieces:
    @given(
        rows=st.lists(st.lists(st.text('a",\n\r é', max_size=6), min_size=2, max_size=2), min_size=1, max_size=30),
        size=st.integers(1, 60),
    )
    @settings(max_examples=200, deadline=None)
    def test_of_a_csv_file_are_whole_lines_wherever_they_are_cut(
        self, rows: list[list[str]], size: int, tmp_path_factory: Any
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "cut.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lines, "BYTES", size)
            cuts, _ = lines._cut(path, quoted=True)
        data, found = path.read_bytes(), list[list[str]]()
        assert [cut.start for cut in cuts] == [0, *(cut.end for cut in cuts[:-1])] and cuts[-1].end == len(data)
        for cut in cuts:
            assert cut.line == data[: cut.start].count(b"\n") + 1
            found += csv.reader(data[cut.start : cut.end].decode().splitlines(keepends=True))
        assert found == list(csv.reader(data.decode().splitlines(keepends=True)))


def test_the_command_is_killed_and_goes_on(sold: Shop, tmp_path: Path) -> None:
    many = pd.concat([sold.inputs()] * 40, ignore_index=True)
    many.to_parquet(tmp_path / "rows.parquet", row_group_size=1000)
    words = [
        sys.executable, "-m", "penstock.cli", "score", "fraud@champion", "--project", "tests.services.chargebacks", "--json",
        "--file", str(tmp_path / "rows.parquet"), "--out", str(tmp_path / "scores"), "--workers", "1",
    ]  # fmt: skip
    environment = {**os.environ, "PENSTOCK_DATA": str(sold.folder), "KAFKA_BOOTSTRAP_SERVERS": ""}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    log, deadline = tmp_path / "scores" / "_delta_log", time.monotonic() + 60
    while not (log.exists() and len(list(log.glob("*.json"))) > 2) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    said = json.loads(subprocess.run(words, env=environment, capture_output=True, check=True, timeout=120).stdout)
    assert (said["rows"], said["bad"], said["parts"]) == (len(many), 0, 48)
    assert 0 < said["parts_there"] <= 48
    found = pa.Table.from_batches(list(sink_of(str(tmp_path / "scores"), said["job"], said["lineage"]).batches(["row"])))
    assert sorted(found["row"].to_pylist()) == list(range(1, len(many) + 1))
