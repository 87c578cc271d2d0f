"""A report of what Kafka holds is that of the same records in memory, byte for byte; and of the tables, where Kafka is gone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tests.services import shop
from tests.services.cli.test_report import recorded
from tests.unit.test_report import found

import penstock as ps
from penstock.log.kafka import KafkaLog
from penstock.report.records import Records
from penstock.report.report import report_of
from penstock.services.feature_store.archive import Archive
from penstock.topics import Topics

PROJECT = """import penstock as ps
from tests.services.shop import declared
project = ps.Project("reported", declared(None).models)
"""

COMMAND = [sys.executable, "-m", "penstock.cli", "report", "--project", "reported.py", "--html", "r.html", "--markdown", "-"]


def test_the_page_of_what_kafka_holds_is_that_of_the_records_and_of_the_tables(kafka_bootstrap: str, tmp_path: Path) -> None:
    project = ps.Project("reported", shop.declared(None).models)
    (tmp_path / "reported.py").write_text(PROJECT)

    async def staged() -> None:
        topics, log = Topics(project), KafkaLog(kafka_bootstrap, "test-report")
        await log.create(topics.all())
        await log.send(said := recorded(topics))
        archive = Archive(topics, log, tmp_path / "tables", whole=True)
        async with asyncio.timeout(60):
            while archive.written < len(said):
                await archive.turn(0.5)
                await archive.flush()
        await archive.close()
        await log.close()

    def told(**where: str) -> tuple[str, str, str]:
        env = {name: value for name, value in os.environ.items() if name != "KAFKA_BOOTSTRAP_SERVERS"}
        env |= {"PENSTOCK_TABLES": "tables", "PYTHONPATH": str(Path(__file__).parents[2]), **where}
        ran = subprocess.run(COMMAND, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip(), (tmp_path / "r.html").read_text(encoding="utf-8"), ran.stderr

    asyncio.run(staged())
    records = Records.of("reported", project.models[0], found())
    in_memory = report_of(replace(records, unanswered="no outcomes are archived in tables"))
    live, kept = told(KAFKA_BOOTSTRAP_SERVERS=kafka_bootstrap), told()
    assert live[:2] == kept[:2] == (in_memory.to_markdown().strip(), in_memory.to_html())
    assert "from the tables, up to" in kept[2] and "from the tables" not in live[2]
