"""Prometheus rules and Grafana dashboards: they name only what our processes expose, every alert fires when it should, and none
fires while all is well."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from tests.conftest import missing
from tests.contract.watched import ALERTS, DASHBOARDS, NAME, RULES, expressions, named, panels
from typer.testing import CliRunner

from penstock.cli import app
from penstock.doors import door  # noqa: F401  # counts what it turns away
from penstock.runtime import telemetry
from penstock.runtime.health import application
from penstock.services.feature_store import archivist
from penstock.services.inference.meters import Meters
from penstock.services.inference.open_inference.tally import Tallies, Tally
from penstock.services.monitoring import meters as alerting

SCRAPED = {"job", "instance", "service"}
"""Labels that Prometheus adds."""


def shown() -> dict[str, set[str]]:
    """Sample -> its labels, of everything that services expose: their registries, read as Prometheus reads them. Families that
    nobody has counted in yet have labels, but no samples."""
    telemetry._families()
    telemetry.priced(1.0)
    archivist._costs()
    alerting._families()
    alerting.lasting()
    meters = Meters()
    meters.registry.register(Tallies(lambda: {"late/1": Tally()}))

    async def ask() -> str:
        transport = httpx.ASGITransport(application("any", lambda: "", meters.registry))
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            await client.get("/healthz")
            return (await client.get("/metrics")).text

    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(asyncio.run(ask())):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    for registry in (REGISTRY, meters.registry):
        for name, labels in _declared(registry):
            found.setdefault(name, set()).update(labels)
    return found


def _declared(registry: CollectorRegistry) -> Iterator[tuple[str, set[str]]]:
    for collector, names in registry._collector_to_names.items():
        labels = set(getattr(collector, "_labelnames", ()))
        for name in names:
            yield name, labels | ({"le"} if name.endswith("_bucket") else set())


SHOWN = shown()


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_every_metric_that_is_named_is_one_that_services_expose(where: str, expression: str) -> None:
    assert NAME.search(expression), where
    assert named(expression) - SHOWN.keys() - {"up"} == set()  # Prometheus says itself who is up


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_every_label_that_is_matched_is_one_that_the_metric_has(where: str, expression: str) -> None:
    for name, matchers in re.findall(r"([a-zA-Z_:]+)\{([^}]*)\}", expression):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', "", matchers)))
        assert labels <= SHOWN.get(name, set()) | SCRAPED, f"{where}: {name}"


def test_labels_of_our_metrics_are_few_and_none_is_an_id_a_key_or_a_version_that_stays() -> None:
    ours = {name: labels for name, labels in SHOWN.items() if name.startswith("penstock_")}
    bounded = {
        "lane", "route", "status", "model", "variant", "reason", "cause", "subject", "duty", "part", "end", "le", "version",
    }  # fmt: skip
    assert {label for labels in ours.values() for label in labels} <= bounded
    assert [name for name, labels in ours.items() if "version" in labels] == ["penstock_serving"]  # one that was relieved goes


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_every_alert_says_what_happened_and_what_to_type(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert rule["annotations"].keys() == {"summary", "todo"}
    commands = {found.split()[0] for found in re.findall(r"penstock ([a-z][a-z ]*)", rule["annotations"]["todo"])}
    help_ = CliRunner().invoke(app, ["--help"]).output
    assert all(re.search(rf"^  {command} ", help_, re.MULTILINE) for command in commands)


# -- The simulation ----------------------------------------------------------------------------------------------------

SHORT, LONG = (30, 30), (150, 90)
"""Minutes that all is well, and then that something is not; for alerts that take their time, more."""


def counter(well: float, ill: float, spans: tuple[int, int]) -> str:
    """A counter that grows by so much a minute."""
    return f"0+{well}x{spans[0]} {well * spans[0] + ill}+{ill}x{spans[1] - 1}"


def gauge(well: float, ill: float, spans: tuple[int, int]) -> str:
    return f"{well}+0x{spans[0]} {ill}+0x{spans[1] - 1}"


AT = 'job="penstock",instance="a:8080"'
HEALTHY: dict[str, tuple[Any, float]] = {
    f'up{{{AT},service="inference"}}': (gauge, 1),
    f'penstock_lag_seconds{{{AT},lane="feature_store"}}': (gauge, 5),
    f'penstock_closed_timestamp_seconds{{{AT},lane="feature_store"}}': (counter, 60),
    f'penstock_records_in_total{{{AT},lane="feature_store"}}': (counter, 6000),
    f'penstock_waits_total{{{AT},lane="feature_store"}}': (counter, 0),
    f'penstock_fenced_total{{{AT},lane="feature_store"}}': (counter, 0),
    f'penstock_dead_letters_total{{{AT},lane="feature_store"}}': (counter, 0),
    f'penstock_step_seconds_bucket{{{AT},lane="inference",le="0.1"}}': (counter, 100),
    f'penstock_step_seconds_bucket{{{AT},lane="inference",le="10.0"}}': (counter, 100),
    f'penstock_step_seconds_bucket{{{AT},lane="inference",le="+Inf"}}': (counter, 100),
    f'penstock_http_seconds_bucket{{{AT},service="inference",route="/predict/{{model}}",le="0.01"}}': (counter, 100),
    f'penstock_http_seconds_bucket{{{AT},service="inference",route="/predict/{{model}}",le="2.5"}}': (counter, 100),
    f'penstock_http_seconds_bucket{{{AT},service="inference",route="/predict/{{model}}",le="+Inf"}}': (counter, 100),
    f'penstock_http_requests_total{{{AT},service="inference",route="/predict/{{model}}",status="200"}}': (counter, 100),
    f'penstock_http_requests_total{{{AT},service="inference",route="/predict/{{model}}",status="500"}}': (counter, 0),
    f'penstock_http_turned_away_total{{{AT},service="inference",status="401"}}': (counter, 1),
    f'penstock_extraction_share{{{AT},service="inference"}}': (gauge, 0.3),
    f'penstock_extraction_refused_total{{{AT},service="inference"}}': (counter, 0),
    f'penstock_scores_failed_total{{{AT},service="inference",model="late"}}': (counter, 0),
    f'penstock_artefacts_refused_total{{{AT},service="inference",model="late",cause="refused"}}': (counter, 0),
    f'penstock_predictions_total{{{AT},service="inference",model="late",variant="champion"}}': (counter, 6000),
    f'penstock_predictions_total{{{AT},service="inference",model="late",variant="none"}}': (counter, 0),
    f'penstock_spill_bytes{{{AT},service="inference"}}': (gauge, 0),
    f'penstock_features_unread_total{{{AT},service="inference"}}': (counter, 0),
    f'process_resident_memory_bytes{{{AT},service="inference"}}': (gauge, 3e8),
    f'process_resident_memory_bytes{{{AT},service="trainer"}}': (gauge, 1.2e9),
    f'penstock_part_memory_bytes{{{AT},service="feature_store",part="archive"}}': (gauge, 3e8),
    f'penstock_part_cpu_seconds_total{{{AT},service="feature_store",part="archive"}}': (counter, 1),
    f'process_cpu_seconds_total{{{AT},service="inference"}}': (counter, 1),
    f'process_open_fds{{{AT},service="inference"}}': (gauge, 100),
    f'process_max_fds{{{AT},service="inference"}}': (gauge, 1024),
    f'penstock_cpu_hour_price{{{AT},service="inference"}}': (gauge, 0.036),
    f'penstock_alarms_lasting{{{AT},service="monitoring",subject="late",cause="drift"}}': (gauge, 0),
    f'penstock_alerts_waiting{{{AT},service="monitoring",route="slack"}}': (gauge, 0),
    f'penstock_alerts_undelivered_total{{{AT},service="monitoring",route="slack"}}': (counter, 0),
}
ILLS: dict[str, dict[str, float]] = {
    "PenstockDown": {"up": 0},
    "PenstockBehind": {"penstock_lag_seconds": 300},
    "PenstockTimeStands": {"penstock_closed_timestamp_seconds": 0},
    "PenstockNoEvents": {"penstock_records_in_total": 0},
    "PenstockWaits": {"penstock_waits_total": 20},
    "PenstockFenced": {"penstock_fenced_total": 1},
    "PenstockDeadLetters": {"penstock_dead_letters_total": 1},
    "PenstockSlowSteps": {'lane="inference",le="0.1"': 10},
    "PenstockSlowAnswers": {'route="/predict/{model}",le="0.01"': 90},
    "PenstockErrors": {'status="500"': 5},
    "PenstockTurnedAway": {"penstock_http_turned_away_total": 600},
    "PenstockScoresFail": {"penstock_scores_failed_total": 3},
    "PenstockVersionNotServed": {"penstock_artefacts_refused_total": 1},
    "PenstockExtraction": {"penstock_extraction_share": 0.9},
    "PenstockWithoutModel": {'variant="champion"': 0, 'variant="none"': 6000},
    "PenstockSpilling": {"penstock_spill_bytes": 4096},
    "PenstockWithoutFeatures": {"penstock_features_unread_total": 10},
    "PenstockMemory": {'process_resident_memory_bytes{job="penstock",instance="a:8080",service="inference"}': 1e9},
    "PenstockCpu": {"process_cpu_seconds_total": 58, 'variant="champion"': 6e5},
    "PenstockFiles": {"process_open_fds": 1000},
    "PenstockCostly": {"process_cpu_seconds_total": 20},
    "PenstockAlarm": {"penstock_alarms_lasting": 1},
    "PenstockAlertsWait": {"penstock_alerts_waiting": 2},
    "PenstockAlertsLost": {"penstock_alerts_undelivered_total": 1},
}
MORE: dict[str, tuple[str, dict[str, float]]] = {
        "a key beyond its bound": ("PenstockExtraction", {"penstock_extraction_refused_total": 1}),
        "the trainer's memory": ("PenstockMemory", {'service="trainer"': 1.99e9}),
        "the archive's memory": ("PenstockMemory", {"penstock_part_memory_bytes": 1e9})}  # fmt: skip


def firing(folder: Path, ills: dict[str, float], expected: set[str], figures: dict[str, float] | None = None) -> str:
    """What promtool complains of when just these alerts are expected to fire at the end of a simulation; empty: nothing."""
    if shutil.which("promtool") is None:
        missing("promtool", "apt-get install prometheus")
    patient = not expected or any(ALERTS[name].get("for") in ("30m", "1h") for name in expected)
    spans, series = LONG if patient else SHORT, []
    for name, (kind, well) in HEALTHY.items():
        ill = next((value for part, value in ills.items() if part in name), well)
        series.append({"series": name, "values": kind(well, ill, spans)})
    fires = {"labels": "", "value": 1}
    checks: list[dict[str, Any]] = [
        {"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": f"{sum(spans)}m",
         "exp_samples": [{**fires, "labels": f'{{alertname="{name}"}}'} for name in sorted(expected)]},
        {"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": f"{spans[0] - 1}m", "exp_samples": []},
    ]  # fmt: skip
    checks += [
        {"expr": f"round({name} * 1e9)", "eval_time": f"{spans[0] - 1}m", "exp_samples": [{**fires, "value": round(value * 1e9)}]}
        for name, value in (figures or {}).items()
    ]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": checks}
    file = folder / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_every_series_of_the_simulation_is_one_that_services_expose() -> None:
    for name in HEALTHY:
        family, labels = name.split("{", 1)
        if family != "up":
            assert set(re.findall(r'(\w+)="', labels)) <= SHOWN[family] | SCRAPED, name


def test_every_alert_has_an_illness() -> None:
    assert ILLS.keys() == ALERTS.keys()


def test_none_fires_while_all_is_well_and_1000_answers_have_their_cost(tmp_path: Path) -> None:
    figures = {"penstock:cpu_seconds_per_1000_predictions": 1 / 3, "penstock:price_per_1000_predictions": 0.00001 / 3}
    assert firing(tmp_path, {}, set(), figures) == ""


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_it_fires_at_its_illness_and_no_other_does(tmp_path: Path, name: str) -> None:
    assert firing(tmp_path, ILLS[name], {name}) == ""


@pytest.mark.parametrize("what", sorted(MORE))
def test_each_part_of_a_rule_fires_by_itself(tmp_path: Path, what: str) -> None:
    name, ills = MORE[what]
    assert firing(tmp_path, ills, {name}) == ""


def test_the_simulation_sees_a_rule_that_does_not_fire(tmp_path: Path) -> None:
    assert "PenstockDown" in firing(tmp_path, {}, {"PenstockDown"})


# -- Dashboards --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_have_a_place_of_their_own_a_title_and_a_unit(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    found = panels(path)
    assert len({panel["id"] for panel in found}) == len({panel["title"] for panel in found}) == len(found)
    for panel in found:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${source}" and panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["description"] and all(target["legendFormat"] for target in panel["targets"]), panel["title"]


def test_what_the_issue_wants_to_see_is_on_the_dashboards() -> None:
    titles = {panel["title"] for path in DASHBOARDS for panel in panels(path)}
    assert titles >= {
        "Lag", "Freshness", "Throughput", "Latency of steps", "Latency of answers", "Errors", "Memory", "CPU", "Dead letters",
        "Cost of 1,000 answers",
    }  # fmt: skip


def test_the_files_are_written_as_they_are(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["alerts", "export", "--to", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "prometheus" / "rules.yml").read_text() == RULES.read_text()
    assert sorted(path.name for path in (tmp_path / "out" / "grafana" / "dashboards").iterdir()) == [p.name for p in DASHBOARDS]
