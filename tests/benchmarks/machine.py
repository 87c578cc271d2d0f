"""The machine that a benchmark ran on, the versions of what took part, and how fast the machine was at that moment."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from penstock.local import kafka

__all__ = ["machine", "speed", "state"]

PACKAGES: Final = (
    "numpy", "numba", "pandas", "pyarrow", "deltalake", "msgspec", "aiokafka", "redis", "httpx", "uvicorn", "uvloop"
)  # fmt: skip
STEPS: Final = 1_000_000


def machine() -> dict[str, Any]:
    """What does not change while it runs."""
    versions = {"python": platform.python_version(), "kafka": kafka.VERSION}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    for name, command in (("redis-server", ["redis-server", "--version"]), ("java", ["java", "-version"])):
        versions[name] = said(command)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "commit": said(["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]),
        "versions": versions,
    }


def state() -> dict[str, float]:
    """What others leave of it: the load of the last minute, and the speed of one core now."""
    return {"load": round(os.getloadavg()[0], 2), "speed": speed()}


def speed() -> float:
    """Million steps a second of a fixed loop, the best of five: tells a slow machine from a slow program."""
    best = float("inf")
    for _ in range(5):
        began, total = time.perf_counter(), 0
        for step in range(STEPS):
            total += step & 7
        best = min(best, time.perf_counter() - began)
    return round(STEPS / best / 1e6, 1)


def processor() -> str:
    place = Path("/proc/cpuinfo")
    lines = place.read_text().splitlines() if place.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def said(command: list[str]) -> str:
    """The first line a program prints, "absent" without it."""
    if shutil.which(command[0]) is None:
        return "absent"
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20, check=False)
    return (answer.stdout.splitlines() or [""])[0].strip()
