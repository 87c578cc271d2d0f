"""What runs on Kafka and Redis exposes every metric that our rules and dashboards name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tests.contract.watched import expressions, named

from penstock.local import state
from penstock.local.process import wait_until
from penstock.settings import SERVICES

ASIDE = {"up"}
"""What Prometheus says itself."""


@pytest.mark.slow  # it starts Kafka, Redis and six services
@pytest.mark.usefixtures("servers_here")
def test_the_services_as_they_run_expose_every_metric_that_is_watched(tmp_path: Path) -> None:
    output, folder = tmp_path / "said", tmp_path / "data" / "demo"
    with output.open("wb") as file:
        demo = subprocess.Popen(
            [sys.executable, "-m", "penstock.cli", "demo", "--kafka", "--days", "10"],
            env={
                **os.environ,
                "PENSTOCK_DATA": str(tmp_path / "data"),
                "PENSTOCK_CPU_HOUR_PRICE": "0.04",
                "PENSTOCK_ALERT_WEBHOOK": "http://127.0.0.1:9/",
            },
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        assert wait_until(lambda: "   rows " in output.read_text(), 180), output.read_text()
        urls = [entry.url for entry in state.status(folder) if entry.name in SERVICES]
        assert len(urls) == len(SERVICES)
        text = "".join(urllib.request.urlopen(f"{url}/metrics", timeout=20).read().decode() for url in urls)
    finally:
        demo.send_signal(signal.SIGINT)
        try:
            demo.wait(timeout=60)
        finally:
            demo.kill()
    families = {line.split()[2]: line.split()[3] for line in text.splitlines() if line.startswith("# TYPE")}
    ends = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
    shown = {name + end for name, kind in families.items() for end in ends.get(kind, ("",))}
    assert {name for _, expression in expressions() for name in named(expression)} - shown - ASIDE == set()
