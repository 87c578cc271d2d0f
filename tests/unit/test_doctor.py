"""What `penstock doctor` says, above all when something is wrong: every failure names what to type."""

import re
import socket
import struct
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.local import doctor
from penstock.local.doctor import Check
from penstock.local.port import free
from penstock.settings import SERVICES

REQUIREMENTS = [
    "numpy<2.5,>=2.1",
    'aiokafka<0.15,>=0.14; extra == "kafka"',
    'penstock[http,kafka]; extra == "inference"',
    'fastapi>=0.115; extra == "http"',
    'no-such-distribution>=1; extra == "inference"',
    'ruff>=0.9; extra == "dev"',
]


def test_an_extra_is_followed_through_the_extras_it_names() -> None:
    assert doctor._required(REQUIREMENTS, "inference") == {"numpy", "aiokafka", "fastapi", "no-such-distribution"}


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.requires", lambda name: REQUIREMENTS)
    found = doctor.packages("inference")
    assert found == Check("packages inference", False, "missing: no-such-distribution", 'pip install "penstock[inference]"')


def test_every_extra_that_doctor_looks_at_exists() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(SERVICES) <= set(project["optional-dependencies"])
    lowest, above = (".".join(map(str, version)) for version in doctor.PYTHONS)
    assert project["requires-python"] == f">={lowest},<{above}"


@pytest.mark.parametrize(("version", "ok"), [((3, 10, 9), False), ((3, 11, 0), True), ((3, 13, 9), True), ((3, 14, 0), False)])
def test_the_python_must_be_one_that_is_supported(version: tuple[int, ...], ok: bool) -> None:
    found = doctor.python(version)
    assert found.ok is ok
    assert bool(found.fix) is not ok


def test_what_is_not_configured_is_told_and_not_a_failure() -> None:
    assert doctor.broker(None).ok is None
    assert doctor.redis(None).ok is None
    assert doctor.clock(None).ok is None


def test_a_broker_and_a_redis_that_are_not_there_say_how_to_start_one() -> None:
    port = free()
    for found in (doctor.broker(f"127.0.0.1:{port}"), doctor.redis(f"redis://:secret@127.0.0.1:{port}/0")):
        assert found.ok is False
        assert "connection refused" in found.detail
        assert "penstock up" in found.fix
        assert "secret" not in found.detail


def test_a_broker_address_without_a_port_is_refused_in_words() -> None:
    assert "host:port" in doctor.broker("localhost").detail


def test_a_broker_that_sends_clients_where_they_cannot_go_is_recognised() -> None:
    nowhere = free()
    with _answering(_metadata("127.0.0.1", nowhere)) as port:
        found = doctor.broker(f"127.0.0.1:{port}")
    assert found.ok is False
    assert f"sends clients to 127.0.0.1:{nowhere}" in found.detail
    assert "advertised.listeners" in found.fix


def test_a_broker_that_answers_where_it_says_is_fine_whichever_of_the_addresses_it_is() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        _answering(_metadata("127.0.0.1", listener.getsockname()[1])) as port,
    ):
        found = doctor.broker(f"127.0.0.1:{free()},127.0.0.1:{port}")
    assert found.ok is True
    assert re.search(r"1 broker\(s\)  round trip \d+ ms", found.detail)


def test_what_is_no_kafka_is_not_taken_for_one() -> None:
    with _answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        found = doctor.broker(f"127.0.0.1:{port}")
    assert found.ok is False
    assert "not a plain Kafka listener" in found.detail


def test_a_taken_port_names_who_wants_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert doctor.free_port("dashboard", port).ok is False
        assert "dashboard" in doctor.free_port("dashboard", port).detail
    assert doctor.free_port("dashboard", port).ok is True


def test_room_is_measured_where_the_data_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(tmp_path) in doctor.disk(tmp_path / "not" / "yet").detail
    monkeypatch.setattr(doctor, "LEAST_DISK", 10**18)
    assert "PENSTOCK_DATA" in doctor.disk(tmp_path).fix


def test_every_failure_says_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    address = f"127.0.0.1:{free()}"
    checks = doctor.examine(address, f"redis://{address}", {"dashboard": free()}, tmp_path)
    assert {"python", "kafka", "redis", "clock", "java", "maven", "docker", "disk"} <= {check.name for check in checks}
    assert [check for check in checks if check.ok is False and not check.fix] == []
    assert doctor.exit_code(checks) == 3


def test_the_exit_code_tells_a_missing_neighbour_from_another_problem() -> None:
    assert doctor.exit_code([Check("disk", True, ""), Check("docker", None, "")]) == 0
    assert doctor.exit_code([Check("disk", False, "")]) == 1
    assert doctor.exit_code([Check("disk", False, ""), Check("kafka", False, "")]) == 3


def _metadata(host: str, port: int) -> bytes:
    """A Kafka Metadata response, version 1: one broker, rack null, controller 1, no topics."""
    broker = struct.pack(">ih", 1, len(host)) + host.encode() + struct.pack(">ih", port, -1)
    body = struct.pack(">ii", 1, 1) + broker + struct.pack(">ii", 1, 0)
    return struct.pack(">i", len(body)) + body


@contextmanager
def _answering(answer: bytes) -> Iterator[int]:
    """A server that gives one answer to one request, in two pieces as a network may."""

    def serve() -> None:
        link, _ = server.accept()
        with link:
            link.recv(4096)
            link.sendall(answer[:3])
            link.sendall(answer[3:])

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield int(server.getsockname()[1])
        thread.join(timeout=5)


def test_tables_and_data_that_cannot_be_written_are_found_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert doctor.offline(str(tmp_path / "new" / "tables")).ok and doctor.folder(tmp_path / "new").ok
    for found, name in ((doctor.offline(str(tmp_path / "file" / "x")), "TABLES"), (doctor.folder(tmp_path / "file"), "DATA")):
        assert (found.ok, "is no folder" in found.detail, f"PENSTOCK_{name}" in found.fix) == (False, True, True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free()}")
    away = doctor.offline("s3://lake/cabs")
    assert away.ok is False and "connection refused" in away.detail and "AWS_ENDPOINT_URL" in away.fix
    assert doctor.exit_code([away]) == 3
    assert doctor.offline("gs://lake").ok is False


def test_a_bucket_is_listed_with_the_credentials_given(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.offline(s3).ok
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    found = doctor.offline(s3)
    assert found.ok is False and "AWS_ACCESS_KEY_ID" in found.fix
