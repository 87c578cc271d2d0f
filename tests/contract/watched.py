"""What our rules and dashboards watch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

__all__ = ["ALERTS", "DASHBOARDS", "RECORDS", "RULES", "expressions", "named", "panels"]

FILES = Path(__file__).parents[2] / "services" / "monitoring"
RULES = FILES / "prometheus" / "rules.yml"
GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
RECORDS: dict[str, str] = {rule["record"]: rule["expr"] for group in GROUPS for rule in group["rules"] if "record" in rule}
DASHBOARDS = sorted((FILES / "grafana" / "dashboards").glob("*.json"))
NAME = re.compile(r"\b(?:penstock[_:]|process_|python_)[a-zA-Z0-9_:]+|\bup\b")


def expressions() -> Iterator[tuple[str, str]]:
    for name, rule in ALERTS.items():
        yield name, rule["expr"]
    yield from RECORDS.items()
    for path in DASHBOARDS:
        for panel in panels(path):
            for target in panel.get("targets", ()):
                yield f"{path.stem}: {panel['title']}", target["expr"]


def panels(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["panels"]
    return found


def named(expression: str) -> set[str]:
    """The metrics that an expression names, but for what rules record."""
    return set(NAME.findall(re.sub(r'"[^"]*"', '""', expression))) - RECORDS.keys()
