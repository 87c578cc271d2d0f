"""The command line as a whole: help, wrong use, errors, and exit codes."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer

from penstock.cli import app, broker, options, screen
from penstock.errors import PenstockError, Unreachable
from penstock.local import port, state
from penstock.log import LogError
from penstock.log.memory import MemoryLog
from penstock.settings import SERVICES

if TYPE_CHECKING:
    from tests.services.cli.conftest import Cli


def commands() -> dict[str, Any]:
    """Every command by the words that call it."""
    found: dict[str, Any] = {}

    def walk(command: Any, words: tuple[str, ...]) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, (*words, name))
        if words and not hasattr(command, "commands"):
            found[" ".join(words)] = command

    walk(typer.main.get_command(app), ())
    return found


def test_help_imports_nothing_heavy_and_so_answers_at_once() -> None:
    program = """
import sys
sys.argv = ["penstock", "--help"]
from penstock.cli import main
try:
    main()
finally:
    heavy = {"pydantic", "pydantic_settings", "numpy", "aiokafka", "fastapi", "redis", "numba", "pandas", "structlog", "river"}
    sys.stderr.write(" ".join(sorted(heavy & set(sys.modules))))
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0
    assert "simulate" in said.stdout
    assert said.stderr == ""


def test_every_command_takes_a_project_can_speak_json_and_explains_itself() -> None:
    for words, command in commands().items():
        assert {"--json", "--project"} <= {option for parameter in command.params for option in parameter.opts}, words
        assert command.help, words
        assert len(command.get_short_help_str(200)) <= 60, words  # whole on a terminal of 80 columns


def test_the_commands_are_those_that_the_readme_promises() -> None:
    assert set(commands()) >= {
        *("demo", "simulate", "up", "down", "status", "logs", "run", "doctor", "check", "topology", "publish", "version"),
        *("topics plan", "topics apply", "topics list", "topics tail", "dlq list", "dlq show", "dlq replay"),
        *("features list", "features show", "features graph", "features verify", "features explain"),
        *("schemas export", "schemas check", "config show"),
    }


def test_the_services_are_those_of_the_settings() -> None:
    assert tuple(options.Service) == SERVICES


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (["frobnicate"], "No such command 'frobnicate'.", "penstock --help"),
        (["topic", "list"], "Did you mean 'topics'?", "penstock --help"),
        (["run", "trainr"], "'trainr' is not one of", "penstock run --help"),
        (["publish", "scheduled"], "what to publish is not said", "penstock publish EVENT --file FILE"),
        (["publish", "scheduled", "--file", "x", "--input", "y"], "or twice", "penstock publish --input DIR"),
        (["publish", "scheduld", "--file", "x.csv"], "project flights has no event scheduld", "did you mean scheduled?"),
        (["publish", "scheduled", "--file", "x.csv"], "no such file: x.csv", "give the path"),
        (["publish", "scheduled", "--file", "x.csv", "--rate", "1", "--accelerate", "1"], "exclude each other", "give one"),
        (["--project", "nothing.py", "check"], "no such file: nothing.py", "project = ps.Project"),
        (["check", "--project", "penstock.nothing"], "penstock.nothing", "importable module"),
    ],
)
def test_wrong_use_is_one_line_what_and_one_line_what_to_type(
    cli: Cli, words: list[str], what: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_PROJECT", "penstock.examples.flights")
    said = cli(*words)
    first, second = said.stderr.strip().split("\n")
    assert what in first
    assert second.startswith("-> ")
    assert fix in second
    assert said.exit_code == 2
    assert said.stdout == ""


def test_programs_get_an_error_as_json(cli: Cli) -> None:
    said = cli("topics", "tail", "x", "--json")
    error = json.loads(said.stderr)
    assert (error["type"], error["fix"].split()[0], said.stdout, said.exit_code) == ("error", "penstock", "", 3)
    assert error["text"].startswith("no broker")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import penstock as ps\n\nproject = 1 / 0\n", "fraud.py, line 3: ZeroDivisionError: division by zero"),
        ("x = (\n", "fraud.py, line 1: SyntaxError"),
        ("x = 1\n", "has no `project`"),
    ],
)
def test_a_wrong_project_file_is_named_with_its_line(cli: Cli, here: Path, text: str, what: str) -> None:
    (here / "fraud.py").write_text(text)
    said = cli("check", "--project", "fraud.py")
    assert said.exit_code == 2
    assert what in said.stderr
    assert "Traceback" not in said.stderr


def test_debug_shows_where_an_error_comes_from(cli: Cli, here: Path) -> None:
    (here / "fraud.py").write_text("project = 1 / 0\n")
    said = cli("--debug", "check", "--project", "fraud.py")
    assert said.exit_code == 1
    assert said.exception is not None
    assert said.exception.__cause__.__class__ is ZeroDivisionError


@pytest.mark.parametrize("words", [["check"], ["topology"]])
def test_a_project_may_be_named_before_or_behind_a_command_or_be_its_first_word(cli: Cli, words: list[str]) -> None:
    name = "penstock.examples.electricity"
    found = [cli.json(*words, name), cli.json(*words, "--project", name), cli.json("--project", name, *words)]
    assert found[0] == found[1] == found[2] != cli.json(*words)


def test_commands_work_on_the_project_that_is_up_when_none_is_named_and_say_so(
    cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = here / ".penstock"
    folder.mkdir()
    (folder / options.PROJECT_FILE).write_text("penstock.examples.electricity")
    assert cli.json("check")["project"] == "flights"  # left by one that is over
    state.write(folder, [])  # this process supervises it now
    said = cli("check", "--json")
    assert json.loads(said.stdout)["project"] == "electricity"
    assert said.stderr == "project penstock.examples.electricity, which is up in .penstock\n"
    assert cli.json("check", "penstock.examples.flights")["project"] == "flights"
    monkeypatch.setenv("PENSTOCK_PROJECT", "penstock.examples.flights")
    assert cli.json("check")["project"] == "flights"


@pytest.mark.parametrize("debug", [False, True])
def test_what_client_libraries_log_is_shown_for_debug_only(cli: Cli, made: MemoryLog, debug: bool) -> None:
    screen.form.debug = debug
    screen.hush()
    assert logging.getLogger("aiokafka").isEnabledFor(logging.ERROR) is debug
    assert logging.getLogger("asyncio").isEnabledFor(logging.ERROR) is debug


def test_all_wrong_settings_are_told_at_once(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PARTITIONS", "many")
    monkeypatch.setenv("PENSTOCK_LOG_LEVEL", "loud")
    said = cli("topics", "list")
    assert said.exit_code == 2
    assert "many" in said.stderr
    assert "loud" in said.stderr
    assert "-> " in said.stderr


def test_without_a_broker_a_command_says_how_to_get_one(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PROJECT", "penstock.examples.flights")
    said = cli("topics", "list")
    assert said.exit_code == 3
    assert said.stderr.startswith("no broker: KAFKA_BOOTSTRAP_SERVERS is not set")
    assert "-> penstock up" in said.stderr


def test_a_broker_that_does_not_answer_is_told_within_seconds(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{port.free()}")
    began = time.monotonic()
    said = cli("topics", "plan")
    assert time.monotonic() - began < 5
    assert said.exit_code == 3
    assert "nothing listens there" in said.stderr
    assert "-> penstock doctor" in said.stderr


def test_ctrl_c_is_told_in_one_word(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PROJECT", "penstock.examples.flights")

    def interrupted(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("penstock.local.status", interrupted)
    said = cli("status")
    assert (said.exit_code, said.stderr) == (130, "stopped\n")


def test_colours_need_a_terminal_and_no_objection(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    terminal: Any = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    assert screen.coloured(terminal)
    assert screen.paint("no", "red", terminal) == "\x1b[31mno\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert screen.paint("no", "red", terminal) == "no"
    assert "\x1b" not in cli("doctor").output


def test_whoever_waits_longer_than_two_seconds_is_told_for_what(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(screen, "SILENCE", 0.01)

    async def slow() -> int:
        while "the broker" not in "".join(told):
            told.append(capsys.readouterr().err)
            await asyncio.sleep(0.001)
        return 7

    told: list[str] = []

    async def turn() -> int:
        return await asyncio.wait_for(screen.patiently(slow(), "the broker"), 10)

    assert asyncio.run(turn()) == 7


@pytest.mark.parametrize(
    ("words", "kind", "what", "fix"),
    [
        (
            "topic x does not exist; create it with: penstock topics apply",
            PenstockError,
            "topic x does not exist",
            "penstock topics apply",
        ),
        (
            "listing: Kafka at h:1 says no; look with: penstock doctor",
            Unreachable,
            "listing: Kafka at h:1 says no",
            "penstock doctor",
        ),
        ("odd", PenstockError, "odd", "penstock doctor"),
    ],
)
def test_what_the_log_says_becomes_what_and_what_to_type(words: str, kind: type[PenstockError], what: str, fix: str) -> None:
    found = broker.refusal(LogError(words))
    assert (type(found), str(found), found.fix) == (kind, what, fix)
