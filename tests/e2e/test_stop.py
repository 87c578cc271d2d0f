"""Ctrl-C, at any moment: the demo says so in a line at most, and nothing of it is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.local import state
from penstock.local.process import wait_until

pytestmark = pytest.mark.usefixtures("servers_here")


def said(*words: str) -> Callable[[Path, str], bool]:
    return lambda folder, text: all(word in text for word in words)


def services_start(folder: Path, text: str) -> bool:
    return len(state.status(folder)) > 3


MOMENTS: dict[str, Callable[[Path, str], bool]] = {
    "while Kafka and Redis start": said("penstock demo: 10 days"),
    "while services start": services_start,
    "while events are published": said("   rows ", "   lag "),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_ends_the_demo_on_kafka_quietly_and_whole(tmp_path: Path, moment: str) -> None:
    output = tmp_path / "said"
    folder = tmp_path / "data" / "demo"
    with output.open("wb") as file:
        demo = subprocess.Popen(
            [sys.executable, "-m", "penstock.cli", "demo", "--kafka", "--days", "10"],
            env={**os.environ, "PENSTOCK_DATA": str(tmp_path / "data")},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        assert wait_until(lambda: MOMENTS[moment](folder, output.read_text()), 120), output.read_text()
        began = time.monotonic()
        demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=60) == 130
    finally:
        demo.kill()
    text = output.read_text()
    for noise in ("Traceback", "Error", "Unable", "Task", "exception", "closed"):
        assert noise not in text, f"{text}\nafter {time.monotonic() - began:.1f} s"
    assert left_of(tmp_path) == []


def left_of(folder: Path) -> list[str]:
    """The commands and working places of processes that mention a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:  # it has just ended, or is not ours
                continue
            if str(folder).encode() in words:
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found
