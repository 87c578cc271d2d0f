"""Broker, Redis and supervisor on this machine: real processes, and none of them left behind."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis import Redis

from penstock.local import doctor, kafka, redis, state
from penstock.local.kafka import LocalKafka
from penstock.local.port import free, http_ok, is_free
from penstock.local.process import LocalError, Mark, group, launch, mark, wait_until
from penstock.local.redis import LocalRedis
from penstock.local.supervisor import Process, Supervisor, pause_after

pytestmark = pytest.mark.usefixtures("servers_here")


# -- servers -----------------------------------------------------------------------------------------------------------


def test_redis_finds_its_data_and_its_port_after_a_stop_and_after_a_crash(tmp_path: Path) -> None:
    server = LocalRedis(tmp_path)
    with server:
        url, pid = server.url, server.pid
        assert Redis.from_url(url).set("tile", "1")
        server.stop()
        assert not group(pid)
        server.start()
        assert server.url == url
        assert Redis.from_url(url).incr("tile") == 2
        server.kill()
        server.start()
        assert Redis.from_url(server.url).get("tile") == b"2"
        pid = server.pid
    assert not group(pid)
    assert not (tmp_path / "redis.pid").exists()


def test_kafka_finds_its_records_after_a_stop_and_after_a_crash(tmp_path: Path) -> None:
    with LocalKafka(tmp_path) as server:
        assert kafka.listeners("127.0.0.1", server.port, timeout=2.0) == [("127.0.0.1", server.port)]
        assert doctor.broker(server.bootstrap).ok
        asyncio.run(_publish(server.bootstrap, b"x" * 17_000_000))
        server.stop()
        server.start()
        server.kill()
        server.start()
        assert asyncio.run(_first_record(server.bootstrap)) == 17_000_000
        pid = server.pid
    assert not group(pid)


async def _publish(bootstrap: str, value: bytes) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("events", 1, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=2 * len(value))
    await producer.start()
    # A record of 2013: years past any default retention.
    await producer.send_and_wait("events", value, partition=0, timestamp_ms=1_357_000_000_000)
    await producer.stop()


async def _first_record(bootstrap: str) -> int:
    consumer = AIOKafkaConsumer("events", bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        async with asyncio.timeout(20):
            return len((await consumer.getone()).value or b"")
    finally:
        await consumer.stop()


def test_broker_and_redis_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    parent = _python(
        f"""
        import time
        from pathlib import Path
        from penstock.local.kafka import LocalKafka
        from penstock.local.redis import LocalRedis
        folder = Path({str(tmp_path)!r})
        servers = [LocalRedis(folder / "redis").start(), LocalKafka(folder / "kafka").start()]
        print(*(server.pid for server in servers), flush=True)
        time.sleep(600)
        """
    )
    try:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(group(pid) for pid in pids)
    finally:
        parent.kill()
        parent.communicate(timeout=10)
    assert wait_until(lambda: not any(group(pid) for pid in pids), 10)


def test_a_second_redis_on_one_folder_is_refused_with_what_to_type(tmp_path: Path) -> None:
    with LocalRedis(tmp_path) as first, pytest.raises(LocalError, match=f"already runs.*{first.pid}") as refused:
        LocalRedis(tmp_path).start()
    assert "penstock down" in refused.value.fix


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(LocalError, match=f"port {port} for redis is taken"):
            LocalRedis(tmp_path, port).start()
    assert is_free(port)


def test_a_server_that_ends_while_starting_says_why_and_which_log(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").write_text("a file where Redis wants a folder")
    with pytest.raises(LocalError, match="ended with code 1 while starting") as failed:
        LocalRedis(tmp_path).start()
    assert str(tmp_path / "redis.log") in failed.value.fix


def test_without_java_or_redis_the_reason_and_the_remedy_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert "apt-get install" in cast(str, kafka.available())
    assert "apt-get install redis-server" in cast(str, redis.available())


def test_the_version_in_the_pom_is_the_version_in_the_code() -> None:
    pom = ElementTree.parse(Path(kafka.__file__).with_name("pom.xml"))
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    versions = {
        cast(str, found.findtext("m:artifactId", namespaces=space)): found.findtext("m:version", namespaces=space)
        for found in pom.iterfind(".//m:dependency", space)
    }
    assert versions["kafka_2.13"] == kafka.VERSION


# -- children ----------------------------------------------------------------------------------------------------------


def test_a_child_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(target=lambda: started.append(launch(FOREVER, log=tmp_path / "child.log")))
    thread.start()
    thread.join()
    try:
        with pytest.raises(subprocess.TimeoutExpired):  # the kernel would have sent its signal at once
            started[0].wait(timeout=0.3)
    finally:
        started[0].kill()
        started[0].wait()


def test_a_reused_process_id_is_not_taken_for_ours(tmp_path: Path) -> None:
    me = mark(os.getpid())
    assert me is not None
    assert me.alive
    assert not Mark(os.getpid(), "0").alive
    entry = {"name": "inference", "pid": os.getpid(), "started": "0", "state": "ready", "url": "", "restarts": 0}
    (tmp_path / "state.json").write_text(json.dumps({"processes": [entry]}))
    assert [found.state for found in state.status(tmp_path)] == ["ended"]
    assert state.down(tmp_path) == []  # and we are still here to say so


def test_a_damaged_state_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"processes": [')
    with pytest.raises(LocalError, match="cannot be read") as broken:
        state.status(tmp_path)
    assert "rm " in broken.value.fix


# -- supervisor --------------------------------------------------------------------------------------------------------

FOREVER = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # inherits the deaf ear
print("ready", flush=True)
time.sleep(600)
"""


@asynccontextmanager
async def supervised(folder: Path, processes: Sequence[Process], **how: Any) -> AsyncIterator[Supervisor]:
    """These processes, up; all ended at the end."""
    supervisor = Supervisor(folder, processes, grace=0.5, **how)
    await supervisor.up()
    try:
        yield supervisor
    finally:
        await supervisor.down()
        assert state.status(folder) == []


def test_a_killed_process_is_started_again_and_counted(tmp_path: Path) -> None:
    async def scenario() -> None:
        said: list[str] = []
        async with supervised(tmp_path, [Process("inference", FOREVER)], say=said.append):
            first = _entry(tmp_path, "inference")
            os.kill(first.pid, signal.SIGKILL)
            await _until(lambda: _entry(tmp_path, "inference").pid != first.pid)
            await _until(lambda: _entry(tmp_path, "inference").state == "ready")
            assert _entry(tmp_path, "inference").restarts == 1
            assert len(said) == 1
            assert said[0].startswith("inference ended with code -9 after 0.")

    asyncio.run(scenario())


def test_a_killed_redis_comes_back_on_its_port_with_its_data(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = LocalRedis(tmp_path / "redis")
        async with supervised(tmp_path, [Process("inference", FOREVER)], servers=[server]):
            url, first = server.url, server.pid
            Redis.from_url(url).set("tile", "1")
            os.kill(first, signal.SIGKILL)
            await _until(lambda: _entry(tmp_path, "redis").pid != first and server.running)
            assert server.url == url
            assert Redis.from_url(url).get("tile") == b"1"
        assert not server.running

    asyncio.run(scenario())


def test_down_ends_a_process_that_ignores_sigterm_and_what_it_started(tmp_path: Path) -> None:
    async def scenario() -> int:
        log = tmp_path / "logs" / "trainer.log"
        trainer = Process("trainer", [sys.executable, "-c", STUBBORN], ready=_soon(lambda: "ready" in log.read_text()))
        async with supervised(tmp_path, [trainer]):
            leader = _entry(tmp_path, "trainer").pid
            assert len(group(leader)) == 2
        return leader

    assert group(asyncio.run(scenario())) == []


@pytest.mark.parametrize(
    ("program", "seconds", "complaint"),
    [
        ("import time; print('no model yet', flush=True); time.sleep(600)", 1.0, "was not ready within 1 s: no model yet"),
        ("print('PENSTOCK_DATA is no folder'); exit(2)", 30.0, "ended with code 2: PENSTOCK_DATA is no folder"),  # no loop
    ],
)
def test_what_does_not_become_ready_is_named_with_its_log_and_everything_is_ended(
    tmp_path: Path, program: str, seconds: float, complaint: str
) -> None:
    trainer = Process("trainer", [sys.executable, "-c", program], ready=_soon(lambda: False))
    with pytest.raises(LocalError, match=f"trainer {complaint}") as late:
        asyncio.run(Supervisor(tmp_path, [Process("registry", FOREVER), trainer], ready_seconds=seconds, grace=0.5).up())
    assert "logs/trainer.log" in late.value.fix
    assert state.status(tmp_path) == []


def test_pauses_double_up_to_a_bound_and_begin_anew_after_a_healthy_life() -> None:
    pauses = [0.0]
    for _ in range(7):
        pauses.append(pause_after(pauses[-1], lived=1.0))
    assert pauses[1:] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert pause_after(5.0, lived=30.0) == 0.2


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, None])
def test_whichever_way_the_supervisor_ends_nothing_is_left(tmp_path: Path, how: signal.Signals | None) -> None:
    """None: `penstock down` from another process."""
    chief = _python(
        f"""
        import asyncio, sys
        from pathlib import Path
        from penstock.local.supervisor import Process, Supervisor
        forever = [sys.executable, "-c", "import time; time.sleep(600)"]
        processes = [Process("registry", forever), Process("inference", forever)]
        asyncio.run(Supervisor(Path({str(tmp_path)!r}), processes, grace=0.5).run())
        """
    )
    try:
        assert wait_until(lambda: [entry.state for entry in state.status(tmp_path)] == ["ready"] * 3, 15)
        pids = [entry.pid for entry in state.status(tmp_path) if entry.name != "supervisor"]
        assert len(pids) == 2
        assert all(group(pid) for pid in pids)
        if how is None:
            assert state.down(tmp_path) == ["supervisor", "registry", "inference"]
        else:
            chief.send_signal(how)
        chief.communicate(timeout=15)
    finally:
        chief.kill()
    assert wait_until(lambda: not any(group(pid) for pid in pids), 5)
    assert all(not entry.running for entry in state.status(tmp_path))
    assert state.down(tmp_path) == []


def test_a_second_supervisor_on_one_folder_is_refused(tmp_path: Path) -> None:
    other = subprocess.Popen(FOREVER)
    try:
        running = mark(other.pid)
        assert running is not None
        chief = {"name": "supervisor", "pid": running.pid, "started": running.started, "state": "ready"}
        (tmp_path / "state.json").write_text(json.dumps({"processes": [chief]}))
        with pytest.raises(LocalError, match=f"already up.*{other.pid}"):
            asyncio.run(Supervisor(tmp_path, []).up())
    finally:
        other.kill()
        other.wait()


def test_http_readiness_is_a_2xx_and_nothing_else() -> None:
    async def answer(status: bytes) -> bool:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(b"HTTP/1.1 " + status + b"\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            return await http_ok(server.sockets[0].getsockname()[1], "/readyz")

    assert asyncio.run(answer(b"200 OK"))
    assert not asyncio.run(answer(b"503 Service Unavailable"))
    assert not asyncio.run(http_ok(free(), "/readyz"))


def _python(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)


def _soon(holds: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def ready() -> bool:
        return holds()

    return ready


async def _until(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.02)


def _entry(folder: Path, name: str) -> state.Status:
    return next(entry for entry in state.status(folder) if entry.name == name)
