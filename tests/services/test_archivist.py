"""The archive in a process of its own: it is heard, started again when it is killed, and never outlives who started it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.services.crew import Harbour, arrival, places, there

from penstock.errors import PenstockError
from penstock.services.feature_store import archivist as module
from penstock.services.feature_store.archivist import Archivist, Told, serve

WORKS = """
import os, sys
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
print('{"missing":"","read":7,"written":5,"behind":3}', flush=True)
sys.stdin.read()
"""


def played(story: Callable[[Archivist, asyncio.Event], Awaitable[None]], *command: str) -> None:
    async def work() -> None:
        stop, kept = asyncio.Event(), Archivist([sys.executable, "-c", *command])
        running = asyncio.ensure_future(kept.run(stop))
        try:
            await story(kept, stop)
        finally:
            stop.set()
            await running

    asyncio.run(asyncio.wait_for(work(), 60))


async def until(holds: Callable[[], object]) -> None:
    while not holds():
        await asyncio.sleep(0.01)


def test_it_is_missing_until_it_says_that_it_is_ready_and_ends_when_it_is_to_stop(tmp_path: Path) -> None:
    async def story(kept: Archivist, stop: asyncio.Event) -> None:
        assert kept.missing() == "the archive has not started yet"
        await until(lambda: not kept.missing())
        assert kept._told == Told("", 7, 5, 3)
        assert kept._meters._of("behind")._value.get() == 3

    played(story, WORKS, str(tmp_path / "pids"))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pids").read_text()), 0)


def test_words_of_a_library_on_its_standard_output_are_passed_by(tmp_path: Path) -> None:
    async def story(kept: Archivist, stop: asyncio.Event) -> None:
        await until(lambda: kept._told == Told("", 7, 5, 3))

    played(story, "print('a library says hello', flush=True)" + WORKS, str(tmp_path / "pids"))


def test_it_is_started_again_when_it_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.01)

    async def story(kept: Archivist, stop: asyncio.Event) -> None:
        await until(lambda: not kept.missing())
        os.kill(int((tmp_path / "pids").read_text()), signal.SIGKILL)
        await until(kept.missing)
        await until(lambda: not kept.missing())
        assert len((tmp_path / "pids").read_text().split()) == 2

    played(story, WORKS, str(tmp_path / "pids"))


def test_its_own_end_is_an_error_of_the_service() -> None:
    async def story(kept: Archivist, stop: asyncio.Event) -> None:
        await asyncio.Event().wait()

    async def work() -> None:
        await Archivist([sys.executable, "-c", "raise SystemExit(3)"]).run(asyncio.Event())

    with pytest.raises(PenstockError, match=r"the process of the archive ended \(exit code 3\)"):
        asyncio.run(asyncio.wait_for(work(), 60))


def test_it_ends_with_its_standard_input_and_has_said_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def work() -> None:
        harbour, stop = Harbour(tmp_path), asyncio.Event()
        await harbour.open()
        await harbour.log.send([arrival(n) for n in range(10)])
        archive = harbour.archive()
        assert await archive.behind() == 0
        await archive.turn()
        assert await archive.behind() == 10
        running = asyncio.ensure_future(archive.run(stop))
        os.close(theirs)
        await serve([archive], stop)
        await running
        assert await archive.behind() == 0
        await archive.close()
        assert places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")

    ours, theirs = os.pipe()
    with os.fdopen(ours) as parent:
        monkeypatch.setattr(sys, "stdin", parent)
        asyncio.run(asyncio.wait_for(work(), 60))
    assert '{"missing":"","read":0,"written":0,"behind":10,"cpu":' in capfd.readouterr().out


def test_how_far_it_is_can_be_asked_while_it_opens_its_tables(tmp_path: Path) -> None:
    async def work() -> None:
        harbour = Harbour(tmp_path)
        await harbour.open()
        await harbour.log.send([arrival(n) for n in range(10)])
        archive = harbour.archive()
        opening = asyncio.ensure_future(archive.turn())
        while not opening.done():
            assert await archive.behind() in (0, 10)
            await asyncio.sleep(0)
        await opening
        assert await archive.behind() == 10
        await archive.close()

    asyncio.run(asyncio.wait_for(work(), 60))
