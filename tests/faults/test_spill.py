"""A real Kafka that goes away under a gateway that is asked all the time, and a gateway that is killed meanwhile: every answer
that was given is a record, and none is there twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.services.air import EVENT, PROJECT, World, fitted, late

from penstock.artefact import Artefacts
from penstock.local import port
from penstock.local.kafka import LocalKafka
from penstock.log.kafka import KafkaLog
from penstock.proof.audit import read_all
from penstock.topics import Topics

TOPICS = Topics(PROJECT, 2)
CLIENTS = 8


@pytest.fixture
def broker(servers_here: None, tmp_path: Path) -> Iterator[LocalKafka]:
    made = LocalKafka(tmp_path / "kafka")
    made.start()
    yield made
    made.kill()


class OneVersion(World):
    """Of which the others need not be fitted."""

    def __init__(self, folder: Path) -> None:
        self.stored = {"v1": Artefacts(folder).put(fitted(len(late.inputs), 0)[1], "onnx")}


class Gateway:
    """The inference service, and clients that ask it without a pause; an id whose answer did not come is not asked again."""

    def __init__(self, folder: Path, bootstrap: str, redis: str) -> None:
        self.folder, self.url = folder, f"http://127.0.0.1:{port.free()}"
        file = folder / "project.py"
        file.write_text("from tests.services.air import PROJECT as project\n")
        self.env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
            "PENSTOCK_PROJECT": str(file),
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "REDIS_URL": redis,
            "PENSTOCK_DATA": str(folder / "data"),
            "PENSTOCK_HTTP_PORT": self.url.rpartition(":")[2],
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.given: set[str] = set()
        self.refused: Counter[str] = Counter()
        self.asking = True
        self.slowest = 0.0

    async def start(self) -> None:
        with (self.folder / "said.log").open("ab") as said:
            argv = [sys.executable, "-m", "penstock.services", "inference"]
            self.process = subprocess.Popen(argv, env=self.env, stdout=said, stderr=subprocess.STDOUT)
        await self.until("/readyz", "true")

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    async def until(self, path: str, wanted: str, seconds: float = 60.0) -> None:
        async with httpx.AsyncClient(base_url=self.url) as client, asyncio.timeout(seconds):
            while True:
                try:
                    if wanted in (await client.get(path)).text:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.05)

    def question(self, who: int, name: str, origin: str) -> tuple[str, dict[str, Any]]:
        """Where it is asked, and how: half of the clients ask about events, half about tensors."""
        if who % 2:
            return "/predict/late", {**EVENT, "flight": name, "origin": origin}
        values = {"name": "X", "shape": [1, len(late.inputs)], "datatype": "FP32", "data": [1.0] * len(late.inputs)}
        return "/v2/models/late/infer", {"id": name, "inputs": [values]}

    async def ask(self, who: int) -> None:
        loop, number = asyncio.get_running_loop(), 0
        async with httpx.AsyncClient(base_url=self.url, timeout=30.0) as client:
            while self.asking:
                number, name, began = number + 1, f"{who}-{number}", loop.time()
                path, body = self.question(who, name, f"o{number % 50}")
                try:
                    answer = await client.post(path, json=body)
                except httpx.HTTPError as error:  # killed: it is not known whether it is recorded
                    self.refused[type(error).__name__] += 1
                    await asyncio.sleep(0.1)
                    continue
                if answer.status_code == 200:
                    self.given.add(name)
                    self.slowest = max(self.slowest, loop.time() - began)
                else:
                    self.refused[answer.text] += 1
                    await asyncio.sleep(0.1)

    async def given_more(self, least: int, seconds: float = 60.0) -> None:
        """Until so many more answers were given."""
        wanted = len(self.given) + least
        async with asyncio.timeout(seconds):
            while len(self.given) < wanted:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("away", "killed"),
    [(2.0, False), pytest.param(60.0, True, marks=pytest.mark.slow)],
    ids=["stopped for 2 s", "killed for 60 s"],
)
def test_every_answer_given_while_kafka_was_away_is_recorded_once(
    broker: LocalKafka, redis_url: str, tmp_path: Path, away: float, killed: bool
) -> None:
    async def scenario() -> None:
        log = KafkaLog(broker.bootstrap)
        await log.create(TOPICS.all())
        await log.send([OneVersion(tmp_path / "data" / "models").said("champion", "v1")])
        gateway = Gateway(tmp_path, broker.bootstrap, redis_url)
        try:
            await gateway.start()
            asking = [asyncio.create_task(gateway.ask(who)) for who in range(CLIENTS)]
            await gateway.given_more(200)
            await asyncio.to_thread(broker.kill if killed else broker.stop)
            await asyncio.sleep(away)  # the outage itself: real time
            assert gateway.refused.total() == 0
            await gateway.given_more(200)
            await asyncio.to_thread(broker.start)
            await gateway.until("/metrics", "penstock_spill_bytes 0.0")
            await gateway.given_more(200)
            assert gateway.refused.total() == 0
            if killed:
                broker.kill()
                await gateway.given_more(300)
                gateway.kill()
                assert (tmp_path / "data" / "spill" / "0" / "records.spill").stat().st_size > 0
                await asyncio.to_thread(broker.start)
                await gateway.start()
                await gateway.given_more(200)
                await gateway.until("/metrics", "penstock_spill_bytes 0.0")
            gateway.asking = False
            await asyncio.gather(*asking)
            found = [*await read_all(log, TOPICS.predictions("late")), *await read_all(log, TOPICS.inferences)]
            recorded = Counter((key or b"").decode() for _, _, key, _, _ in found)
            print(f"{len(gateway.given)} answers, {len(found)} records, slowest {gateway.slowest:.2f} s, {dict(gateway.refused)}")
            assert [name for name, times in recorded.items() if times > 1] == []
            assert gateway.given <= recorded.keys()
        except BaseException:
            print((tmp_path / "said.log").read_text()[-3000:])
            raise
        finally:
            gateway.kill()
            await log.close()

    asyncio.run(scenario())
