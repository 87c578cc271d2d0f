"""docker-compose.yml against the code it starts: no container is needed to see that it would not work."""

import base64
import json
import re
from pathlib import Path
from typing import Any, Literal, cast

import pytest
import typer
import yaml
from fastapi.routing import APIRoute

from penstock.local import kafka, redis
from penstock.project import load
from penstock.runtime.health import application

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("penstock:")}
MACHINES = {path.parent.name for path in (ROOT / "services").glob("*/__init__.py")}
DOCKERFILE = (ROOT / "services" / "Dockerfile").read_text(encoding="utf-8")


def test_every_machine_is_started_and_nothing_else_but_the_topics_job() -> None:
    assert set(OURS) == MACHINES | {"topics"}
    assert {name: service["command"] for name, service in OURS.items() if name != "topics"} == {
        name: ["run", name] for name in MACHINES
    }


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_command_is_one_that_the_command_line_accepts(name: str) -> None:
    from penstock.cli import app

    assert _complaint(typer.main.get_command(app), OURS[name]["command"]) == ""


def test_the_check_of_commands_finds_what_the_command_line_would_refuse() -> None:
    app = typer.Typer()

    @app.command()
    def run(service: Literal["trainer"]) -> None: ...

    @app.command()
    def other() -> None: ...

    command = typer.main.get_command(app)
    assert _complaint(command, ["run", "trainer"]) == ""
    assert "no command 'start'" in _complaint(command, ["start", "trainer"])
    assert "'trainr'" in _complaint(command, ["run", "trainr"])
    assert _complaint(command, ["run"])
    assert _complaint(command, ["run", "trainer", "now"])


def _complaint(command: Any, words: list[str]) -> str:
    """What the command line would say of these words, or nothing. Parses them all and runs nothing.

    `Any`, because Typer carries a Click of its own whose types are not Click's.
    """
    parent = None
    try:
        while hasattr(command, "commands"):
            name, *words = words
            if name not in command.commands:
                return f"no command {name!r} among {sorted(command.commands)}"
            parent = command.make_context(command.name, [name], parent=parent)
            command = command.commands[name]
        command.make_context(command.name, words, parent=parent)
    except Exception as error:  # a UsageError of either Click
        return str(error) or type(error).__name__
    return ""


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_setting_is_a_field_of_the_settings(name: str) -> None:
    from penstock.settings import Settings

    ours = [key for key in OURS[name]["environment"] if key.startswith("PENSTOCK_")]
    unknown = [key for key in ours if key.removeprefix("PENSTOCK_").lower().split("__")[0] not in Settings.model_fields]
    assert not unknown
    standard = {"KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"}
    assert set(OURS[name]["environment"]) - set(ours) == standard


def test_every_image_is_pinned_to_an_exact_release() -> None:
    images = [service["image"] for service in SERVICES.values()] + re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert [image for image in images if not re.search(r":v?\d+\.\d+\.\d+", image)] == []
    assert f"apache/kafka:{kafka.VERSION}" in images  # the same broker as `penstock up` runs


def test_every_port_is_published_on_this_machine_only_and_once() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []
    assert len({port.split(":")[1] for port in ports}) == len(ports)


def test_nothing_runs_as_root_or_may_become_it() -> None:
    for name, service in SERVICES.items():
        assert int(str(service["user"]).split(":")[0]) > 0, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    assert f"USER {OURS['inference']['user']}" in DOCKERFILE


def test_our_containers_write_only_to_their_volume() -> None:
    for name, service in OURS.items():
        assert service["read_only"] is True, name
        assert service["volumes"] == ["data:/data"], name
        assert service["environment"]["PENSTOCK_DATA"] == "/data", name


def test_everything_that_stays_up_has_a_health_check_and_a_memory_limit() -> None:
    for name, service in SERVICES.items():
        assert service["mem_limit"], name
        if name != "topics":
            assert service["healthcheck"]["test"][0] == "CMD", name
            assert {"start_period", "start_interval", "timeout"} <= set(service["healthcheck"]), name


def test_services_wait_for_the_broker_redis_and_the_topics() -> None:
    assert SERVICES["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    for name in MACHINES:
        assert SERVICES[name]["depends_on"] == {
            "kafka": {"condition": "service_healthy"},
            "redis": {"condition": "service_healthy"},
            "topics": {"condition": "service_completed_successfully"},
        }, name


def test_every_health_check_asks_for_a_path_that_is_served() -> None:
    served = set(json.loads((ROOT / "schemas" / "openapi.json").read_text(encoding="utf-8"))["paths"])
    served |= {route.path for route in application("any", lambda: "").routes if isinstance(route, APIRoute)}
    for name in MACHINES:
        [path] = re.findall(r"http://127\.0\.0\.1:8080(/[\w/]+)", SERVICES[name]["healthcheck"]["test"][-1])
        assert path in served, name


def test_the_project_that_the_services_run_is_there() -> None:
    assert load(OURS["inference"]["environment"]["PENSTOCK_PROJECT"]).models


def test_the_composed_redis_is_set_up_as_the_local_one() -> None:
    program, *words = SERVICES["redis"]["command"]
    assert program == "valkey-server"
    assert dict(zip(words[::2], words[1::2], strict=True)) == {f"--{name}": value for name, value in redis.OPTIONS.items()}


def test_every_volume_used_is_declared_and_every_folder_is_there_to_be_read() -> None:
    volumes = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    used = {volume.split(":")[0] for volume in volumes}
    folders = {name for name in used if name.startswith("./")}
    assert used - folders == set(COMPOSE["volumes"])
    assert all((ROOT / name).is_dir() for name in folders)
    assert all(volume.endswith(":ro") for volume in volumes if volume.startswith("./"))


def test_prometheus_asks_every_machine_and_reads_the_rules_that_lie_beside_its_configuration() -> None:
    folder = ROOT / "services" / "monitoring" / "prometheus"
    said = yaml.safe_load((folder / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = said["scrape_configs"]
    port = OURS["inference"]["environment"]["PENSTOCK_HTTP_PORT"]
    assert job["job_name"] == "penstock"
    assert {target["targets"][0]: target["labels"]["service"] for target in job["static_configs"]} == {
        f"{name}:{port}": name for name in MACHINES
    }
    assert all((folder / name).is_file() for name in said["rule_files"])
    assert all(SERVICES[name]["profiles"] == ["metrics"] for name in ("prometheus", "grafana"))


def test_the_composed_broker_is_set_up_as_the_local_one() -> None:
    environment = cast(dict[str, str], SERVICES["kafka"]["environment"])
    own = {
        "node.id",
        "process.roles",
        "controller.listener.names",
        "listener.security.protocol.map",
    }  # listeners differ
    for key, value in kafka.SETTINGS.items():
        if key not in own:
            assert environment[f"KAFKA_{key.replace('.', '_').upper()}"] == value
    assert len(base64.urlsafe_b64decode(environment["CLUSTER_ID"] + "==")) == 16


def test_clients_inside_and_outside_are_each_sent_to_an_address_that_they_can_reach() -> None:
    advertised = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert f"INTERNAL://{OURS['inference']['environment']['KAFKA_BOOTSTRAP_SERVERS']}" in advertised
    assert "EXTERNAL://127.0.0.1:9092" in advertised
    assert "127.0.0.1:9092:9092" in SERVICES["kafka"]["ports"]


def test_the_image_installs_exactly_the_lock() -> None:
    assert "pip install --require-hashes -r requirements.lock" in DOCKERFILE
    assert "pip install --no-deps ." in DOCKERFILE
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = {word for line in re.findall(r"^COPY (?!--)(.*)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]}
    assert {f"!{name}" for name in copied} <= set(kept)
