"""up, down, status, logs, run, doctor: the services on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from penstock import local
from penstock.cli import processes, supervising
from penstock.errors import PenstockError
from penstock.local import kafka, port
from penstock.local.process import end_group, group, launch
from penstock.settings import SERVICES
from penstock.settings import load as load_settings

if TYPE_CHECKING:
    from tests.services.cli.conftest import Cli

FAKE = """
import sys, http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
    def log_message(self, *words):
        pass
print("serving", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_each_service_is_told_where_everything_is_and_asked_on_its_own_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_HTTP_PORT", "8080")  # as in a container; here it would be one port for all
    settings = load_settings()
    found = supervising.processes(settings, SERVICES, "127.0.0.1:9092", "redis://127.0.0.1:6379/0")
    assert [process.name for process in found] == list(SERVICES)
    assert len({process.url for process in found}) == len(SERVICES)
    for process in found:
        assert process.argv[1:] == ["-m", "penstock.services", process.name]
        assert process.env["KAFKA_BOOTSTRAP_SERVERS"] == "127.0.0.1:9092"
        assert process.env["REDIS_URL"] == "redis://127.0.0.1:6379/0"
        assert process.env["PENSTOCK_HTTP_PORT"] == "0"
        assert Path(process.env["PENSTOCK_DATA"]).is_absolute()


def test_a_taken_port_is_told_before_anything_is_started(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("PENSTOCK_TRAINER_PORT", str(taken.getsockname()[1]))
        said = cli("up", "--only", "trainer")
    assert said.exit_code == 3
    assert f"{taken.getsockname()[1] if taken.fileno() >= 0 else ''}" in said.stderr
    assert "for trainer" in said.stderr
    assert "PENSTOCK_TRAINER_PORT" in said.stderr
    assert not Path(".penstock").exists()


def test_up_without_java_or_redis_says_what_to_install(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "_refuse_taken_ports", lambda settings, names: None)
    monkeypatch.setattr(kafka, "available", lambda: "no Java 17 -> apt-get install java")
    said = cli("up")
    assert said.exit_code == 3
    assert said.stderr.strip().split("\n") == ["no Java 17", "-> apt-get install java"]


def test_status_says_what_to_restart_after_a_swap_and_what_is_waited_for(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    class Shadow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = {"/generation": {"generation": "8ec64891", "in_charge": "ef3818a4"}, "/readyz": {"waiting": "Kafka is silent"}}
            self.send_response(200 if self.path in said else 404)
            self.end_headers()
            self.wfile.write(json.dumps(said.get(self.path)).encode())

        def log_message(self, *words: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Shadow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        runs = local.Status("feature_store", os.getpid(), "", "ready", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr("penstock.local.status", lambda folder: [runs])
        said = cli("status")
        assert "ef3818a4 of the views is in charge" in said.stderr and "penstock down, then penstock up" in said.stderr
        assert "Kafka is silent" in said.stderr.split("\n")
        assert cli.json("status")["views"] == {"generation": "8ec64891", "in_charge": "ef3818a4"}
        assert cli.json("status")["waiting"] == {"feature_store": "Kafka is silent"}
        server.shutdown()


def test_status_down_and_logs_of_nothing_are_calm(cli: Cli) -> None:
    said = cli("status")
    assert said.exit_code == 1
    assert "nothing runs here" in said.stdout
    assert "-> penstock up" in said.stderr
    assert cli.json("status", code=1)["processes"] == []
    assert cli.json("down") == {"ended": [], "wiped": []}
    assert "one of: feature_store" in cli("logs", "nobody").stderr
    assert "has written nothing here yet" in cli("logs", "trainer").stderr


def test_logs_shows_the_newest_lines(cli: Cli, here: Path) -> None:
    folder = here / ".penstock" / "logs"
    folder.mkdir(parents=True)
    (folder / "trainer.log").write_text("".join(f"line {n}\n" for n in range(100)))
    assert cli("logs", "trainer", "-n", "2").stdout == "line 98\nline 99\n"
    assert json.loads(cli("logs", "trainer", "-n", "1", "--json").stdout) == {"service": "trainer", "line": "line 99"}


def test_what_a_service_wrote_as_json_stays_json(cli: Cli, here: Path) -> None:
    folder = here / ".penstock" / "logs"
    folder.mkdir(parents=True)
    (folder / "trainer.log").write_text('{"event": "fitted", "rows": 3}\n[1]\n')
    assert cli.lines("logs", "trainer") == [
        {"service": "trainer", "event": "fitted", "rows": 3},
        {"service": "trainer", "line": "[1]"},
    ]


def test_commands_name_the_folder_they_look_at_and_what_is_up_in_others(
    cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket
    import subprocess
    import sys

    other = here / "other" / ".penstock"
    told = {"PENSTOCK_DATA": str(other), "PENSTOCK_PROJECT": "other.py"}
    waits = [sys.executable, "-c", "input()", "-m", "penstock.services", "trainer"]  # looks like a service, does nothing
    with socket.socket() as taken, subprocess.Popen(waits, env=told, stdin=subprocess.PIPE) as service:
        for words, verb in ((("status",), "status"), (("down",), "down")):
            said = cli(*words)
            assert str(here / ".penstock") in said.stdout
            assert f"up elsewhere: other.py   -> PENSTOCK_DATA={other} penstock {verb}" in said.stderr
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("PENSTOCK_TRAINER_PORT", str(taken.getsockname()[1]))
        assert f"another project is up: other.py in {other}" in cli("up", "--only", "trainer").stderr
        service.communicate(b"\n", timeout=10)
    assert "other.py" not in cli("status").stderr


def test_a_data_folder_that_is_a_file_is_told_by_every_command(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "file").touch()
    monkeypatch.setenv("PENSTOCK_DATA", "file/x")
    for words in ("up", "status", "down", "doctor", "tables list"):
        said = cli(*words.split())
        assert said.exit_code == 2 and "file is a file" in said.stderr and "PENSTOCK_DATA=" in said.stderr


def test_wipe_removes_the_data_folder(cli: Cli, here: Path) -> None:
    (here / ".penstock" / "models").mkdir(parents=True)
    assert cli.json("down", "--wipe")["wiped"] == [str(here / ".penstock")]
    assert not (here / ".penstock").exists()
    assert "nothing of Penstock's" in cli("down", "--wipe").stdout


def test_wipe_of_a_folder_with_another_name_leaves_what_is_not_penstock_s(
    cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_DATA", "data")
    (here / "data" / "models").mkdir(parents=True)
    (here / "data" / "thesis.pdf").touch()
    assert cli.json("down", "--wipe")["wiped"] == [str(here / "data" / "models")]
    assert [path.name for path in (here / "data").iterdir()] == ["thesis.pdf"]


@pytest.mark.parametrize("folder", [".", "..", "x/..", "~", "/"])
def test_wipe_refuses_a_folder_that_holds_more(here: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setenv("HOME", str(here.parent))
    with pytest.raises(PenstockError, match="nothing was removed"):  # asked, never tried: a mistake here would be costly
        processes.wiped(Path(folder).expanduser().resolve())


def test_run_gives_the_service_to_the_machine(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import ModuleType

    ran: list[tuple[str, str]] = []
    machine: Any = ModuleType("penstock.services.__main__")
    machine.run = lambda service: ran.append((service, os.environ["PENSTOCK_PROJECT"]))
    monkeypatch.setitem(sys.modules, "penstock.services.__main__", machine)
    monkeypatch.setenv("PENSTOCK_PROJECT", "other")
    assert cli("run", "trainer", "--project", "fraud.py").exit_code == 0
    assert ran == [("trainer", "fraud.py")]


def test_doctor_says_everything_and_its_exit_code_says_what_kind_of_trouble(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cli.json("doctor", code=cli("doctor").exit_code)
    assert {"python", "kafka", "redis", "java", "disk"} <= {check["name"] for check in found["checks"]}
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{port.free()}")
    said = cli("doctor")
    assert said.exit_code == 3
    assert "FAIL  kafka" in said.stdout
    assert "-> penstock up" in said.stdout


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


class Outside:
    """`penstock up` as a process of its own, with stand-ins for the services on a real broker and a real Redis."""

    def __init__(self, folder: Path, kafka_bootstrap: str, redis_url: str) -> None:
        self.folder = folder
        self.ports = {name: port.free() for name in ("trainer", "registry")}
        (folder / "fake.py").write_text(FAKE)
        (folder / "sitecustomize.py").write_text(
            "import sys\n"
            "from penstock.cli import supervising\n"
            "supervising.TRIES = 2\n"
            f"ports = {self.ports!r}\n"
            f"supervising.command = lambda name: [sys.executable, {str(folder / 'fake.py')!r}, str(ports[name])]\n"
        )
        own = {f"PENSTOCK_{name.upper()}_PORT": str(number) for name, number in self.ports.items()}
        servers = {"KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap, "REDIS_URL": redis_url}
        self._environment = {**os.environ, "PYTHONPATH": str(folder), **servers, **own}

    def start(self, *words: str) -> subprocess.Popen[str]:
        only = [word for name in self.ports for word in ("--only", name)]
        command = [sys.executable, "-m", "penstock.cli", "up", *only, *words]
        out, err = (self.folder / "out").open("w"), (self.folder / "err").open("w")
        with out, err:
            return subprocess.Popen(command, env=self._environment, stdout=out, stderr=err, text=True, start_new_session=True)

    def finish(self, *words: str) -> int:
        return self.start(*words).wait(timeout=120)

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    def events(self) -> list[str]:
        found = []
        for line in self.out.split("\n"):
            with suppress(ValueError):
                found.append(str(json.loads(line)["type"]))
        return found


@pytest.fixture
def outside(here: Path, kafka_bootstrap: str, redis_url: str) -> Outside:
    return Outside(here, kafka_bootstrap, redis_url)


def test_down_ends_what_builds_a_generation_here_and_nowhere_else(cli: Cli, here: Path) -> None:
    kinds = [(here / ".penstock", "backfill"), (here / "other" / ".penstock", "backfill"), (here / ".penstock", "backfill.py")]
    sleeps = [sys.executable, "-c", "import time; time.sleep(600)", "penstock.services"]  # looks like one, and does nothing
    argv = [[*sleeps, name] for _, name in kinds]
    envs = [{"PENSTOCK_DATA": str(folder)} for folder, _ in kinds]
    children = [launch(words, log=here / "said", env=env) for words, env in zip(argv, envs, strict=True)]
    try:
        until(lambda: all(b"\0penstock.services\0" in Path(f"/proc/{c.pid}/cmdline").read_bytes() for c in children))
        assert cli.json("down")["ended"] == ["backfill"]
        assert [child.poll() is None for child in children] == [False, True, True]
        assert cli.json("down")["ended"] == []
    finally:
        for child in children:
            end_group(child.pid, 1.0)


def test_up_starts_all_in_the_background_and_down_leaves_nothing(cli: Cli, here: Path, outside: Outside) -> None:
    try:
        assert outside.finish("--detach") == 0, outside.out + outside.err
        assert "up after" in outside.out
        assert "trainer" in outside.out
        found = cli.json("status")
        assert {process["name"] for process in found["processes"]} == {"supervisor", "trainer", "registry"}
        pids = [process["pid"] for process in found["processes"]]
        assert cli("logs", "trainer").stdout == "serving\n"
        assert outside.finish() == 3
        assert "is already up" in outside.err
        assert set(cli.json("down")["ended"]) == {"supervisor", "trainer", "registry"}
        assert not [pid for pid in pids if group(pid)]
    finally:
        local.down(here / ".penstock")


def test_ctrl_c_ends_what_up_started(cli: Cli, here: Path, outside: Outside) -> None:
    child = outside.start("--json")
    try:
        until(lambda: "up" in outside.events() or child.poll() is not None)
        pids = [process["pid"] for process in cli.json("status")["processes"] if process["name"] != "supervisor"]
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=60) == 0, outside.out + outside.err
        assert [kind for kind in outside.events() if kind != "waiting"][-2:] == ["stopping", "down"]
        assert len(pids) == 2
        assert not [pid for pid in pids if group(pid)]
    finally:
        local.down(here / ".penstock")
        child.kill()


def test_a_service_that_cannot_start_is_told_with_its_last_words(here: Path, outside: Outside) -> None:
    (here / "fake.py").write_text("raise SystemExit('no such model')")
    assert outside.finish("--detach") == 3
    assert "ended 2 times while starting: no such model" in outside.err
    assert "-> read its log:" in outside.err
    assert local.status(here / ".penstock") == []
