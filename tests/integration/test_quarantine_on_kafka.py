"""What a person says by `penstock quarantine` reaches the trainer over a real Kafka, and its lifting, too."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.rides import DAY, START, window
from tests.services.cli.test_quarantine import FILE
from tests.services.test_trainer import outcomes

from penstock.artefact import Artefacts
from penstock.log import Partition, Send
from penstock.log.kafka import KafkaLog
from penstock.project import load
from penstock.records import Run
from penstock.runtime.control import ControlLoop
from penstock.services.trainer.service import Trainer
from penstock.topics import Topics

DEADLINE = 90.0


@pytest.mark.slow  # three processes of the command line, and a trainer that fits four times
def test_what_is_said_on_the_command_line_is_left_out_of_the_next_fit_and_is_back_when_it_is_lifted(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    file = tmp_path / "riding.py"
    text = FILE.replace('"rides-late"', f'"rides-{os.getpid()}"')
    file.write_text(text.replace("label=said)", 'label=said, retrain=ps.every("1d", first="1d"))'))
    topics = Topics(load(str(file)), 3)
    told = [msgspec.structs.replace(o, source="shop" if n % 5 == 0 else "bank") for n, o in enumerate(outcomes(5, a_day=200))]

    def penstock(*words: str) -> str:
        command = [sys.executable, "-m", "penstock.cli", *words, "--project", str(file), "--json"]
        places = {"KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap, "PENSTOCK_PARTITIONS": "3", "PENSTOCK_DATA": str(tmp_path / "data")}
        done = subprocess.run(
            command, env={**os.environ, **places}, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def day(log: KafkaLog, loop: ControlLoop, number: int) -> Run:
        low, high = START + (number - 1) * DAY, START + number * DAY
        new = [o for o in told if low <= o.labelled < high]
        await log.send([Send(topics.outcomes("late"), o.id.encode(), msgspec.json.encode(o)) for o in new])
        await log.send([Send(topics.statistics("late"), b"late", msgspec.json.encode(window(number)))])
        async with asyncio.timeout(DEADLINE):
            while sum((await log.ends([topics.runs])).values()) < number:
                await loop.turn(0.2)
        reader = await log.reader({Partition(topics.runs, 0): number - 1})
        (batch,) = await reader.read(1, 5.0)
        await reader.close()
        return msgspec.json.decode(batch.values[0] or b"", type=Run)

    async def story() -> None:
        log = KafkaLog(kafka_bootstrap)
        try:
            await log.create(topics.all())
            loop = ControlLoop(Trainer(topics, log, Artefacts(tmp_path / "models")), log, "trainer")
            await day(log, loop, 1)
            before = await day(log, loop, 2)
            said = msgspec.json.decode(await asyncio.to_thread(penstock, "quarantine", "add", "late", "--source", "shop"))
            held = await day(log, loop, 3)
            await asyncio.to_thread(penstock, "quarantine", "lift", said["id"])
            after = await day(log, loop, 4)
        finally:
            await log.close()
        assert "quarantined" not in before.data and "quarantined" not in after.data
        assert list(held.data["quarantined"]) == [said["id"]] and 0 < held.data["quarantined"][said["id"]] <= 80
        assert before.data["rows"] < held.data["rows"] + held.data["quarantined"][said["id"]] < after.data["rows"]

    asyncio.run(story())
