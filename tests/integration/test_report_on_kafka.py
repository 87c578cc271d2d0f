"""A report of what Kafka holds is that of the same records in memory, byte for byte."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from tests.services import shop
from tests.services.cli.test_report import recorded
from tests.unit.test_report import found

import penstock as ps
from penstock.log.kafka import KafkaLog
from penstock.report.records import Records
from penstock.report.report import report_of
from penstock.topics import Topics

PROJECT = """import penstock as ps
from tests.services.shop import declared
project = ps.Project("reported", declared(None).models)
"""


def test_the_page_of_what_kafka_holds_is_that_of_the_records(kafka_bootstrap: str, tmp_path: Path) -> None:
    project = ps.Project("reported", shop.declared(None).models)
    (tmp_path / "reported.py").write_text(PROJECT)

    async def staged() -> None:
        topics, log = Topics(project), KafkaLog(kafka_bootstrap, "test-report")
        await log.create(topics.all())
        await log.send(recorded(topics))
        await log.close()

    asyncio.run(staged())
    env = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap, "PENSTOCK_TABLES": "none",
           "PYTHONPATH": str(Path(__file__).parents[2])}  # fmt: skip
    command = [sys.executable, "-m", "penstock.cli", "report", "--project", "reported.py", "--html", "r.html", "--markdown", "-"]
    ran = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    records = Records.of("reported", project.models[0], found())
    in_memory = report_of(records)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.partition("Most wrong answers</span>")[0] == in_memory.to_html().partition("Most wrong answers</span>")[0]
    assert ran.stdout.partition("### ⚪ Most wrong")[0] == in_memory.to_markdown().partition("### ⚪ Most wrong")[0]
