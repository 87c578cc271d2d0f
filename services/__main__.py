"""Run one service on Kafka and Redis: `python -m penstock.services feature_store`. This is where everything is put together."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from penstock.artefact import Artefacts
from penstock.doors.access import Access
from penstock.duration import micros
from penstock.errors import PenstockError, SettingError, Unreachable
from penstock.log.kafka import KafkaLog
from penstock.offline import Tables
from penstock.online.reader import OnlineFeatures
from penstock.project import Project, load
from penstock.runtime.agents import Agents
from penstock.runtime.control import Control
from penstock.runtime.health import application
from penstock.runtime.lane import Lane, now
from penstock.runtime.telemetry import Tracing, logs, priced
from penstock.settings import SERVICES, Settings
from penstock.settings import load as load_settings
from penstock.store.redis import RedisStore
from penstock.topics import Topics
from penstock.windows.machine_code import without_blas

__all__ = ["run"]

SETTLING: Final = 5.0
"""Seconds that a process which is to stop gives its work to come to an end, and its HTTP to answer what was asked."""
CUTTING: Final = 1.0
"""And then, cancelled. It stays within the supervisor's 8 s, and those of others (Docker gives 10, Kubernetes 30)."""


class Machine:
    """What every service is given."""

    def __init__(self, service: str, settings: Settings, topics: Topics, log: KafkaLog) -> None:
        self.service, self.settings, self.topics, self.log = service, settings, topics, log
        self.store = RedisStore(settings.redis_url.get_secret_value(), topics.project.name)
        self.artefacts = Artefacts.of(settings)
        self.tracing = Tracing(service, settings.otel_exporter_otlp_endpoint)
        self.tasks: list[Callable[[], Awaitable[None]]] = []
        """Work that ends soon after `stop` is set, whole."""
        self.app: Any = None
        self._lanes: list[Lane] = []
        self.stop = asyncio.Event()
        """Set when the process is to end."""

    def beside(self, work: Callable[[], object], meaning: str) -> Callable[[], str]:
        """Do blocking work in a thread while the rest starts; what is missing until it is done."""
        done = asyncio.Event()

        async def doing() -> None:
            await asyncio.to_thread(work)
            done.set()
            await self.stop.wait()

        self.tasks.append(doing)
        return lambda: "" if done.is_set() else meaning

    def lanes(self, lanes: list[Lane]) -> Callable[[], str]:
        """Run lanes; what is missing until they are ready."""
        self._lanes += lanes
        self.tasks += [partial(work, self.stop) for lane in lanes for work in (lane.run, lane.watch)]
        return lambda: "; ".join(f"{lane.name} has not joined its group yet" for lane in lanes if not lane.ready)

    def waiting(self) -> str:
        """What its lanes wait for: Kafka or Redis that is away; empty where nothing is."""
        return "; ".join(dict.fromkeys(f"{lane.name} waits: {lane.waiting}" for lane in self._lanes if lane.waiting))


def feature_store(machine: Machine) -> None:
    from .feature_store import api, archivist, quality, rebuild, service
    from .feature_store.succession import Succession

    without_blas()
    topics, idle_after = machine.topics, machine.settings.idle_after
    past, succession = rebuild.EventTables(Tables(machine.settings.offline)), Succession(topics, machine.log, machine.store)
    ready = machine.lanes(service.lanes(topics, machine.log, machine.store, idle_after, machine.tracing, past, succession))
    surveyed = machine.lanes(quality.lanes(topics, machine.log, machine.store))
    kept = archivist.Archivist()
    machine.tasks.append(partial(kept.run, machine.stop))
    views = [view.name for hop in topics.project.topology.hops for view in hop.views]
    online = OnlineFeatures(topics, machine.store)
    missing = [ready, surveyed, kept.missing, machine.beside(partial(online.warm, streams=True), "reads are being compiled")]
    machine.app = api.app(
        online,
        views,
        lambda: "; ".join(filter(None, (m() for m in missing))),
        lambda: api.Generation(*succession.stands),
        machine.waiting,
    )


def archive(machine: Machine) -> None:
    """The offline tables: a part of the feature store, in a process of its own."""
    from .feature_store.archive import Archive
    from .feature_store.archivist import serve

    settings = machine.settings
    kept = [Archive(machine.topics, machine.log, settings.offline, settings.keep, whole) for whole in (False, True)]
    machine.tasks += [*(partial(each.run, machine.stop) for each in kept), partial(serve, kept, machine.stop)]


def backfill(machine: Machine) -> None:
    """The feature store without its doors and tables: what builds a generation of the views beside the one in charge."""
    from .feature_store import rebuild, service

    past = rebuild.EventTables(Tables(machine.settings.offline))
    machine.lanes(service.lanes(machine.topics, machine.log, machine.store, machine.settings.idle_after, machine.tracing, past))


def inference(machine: Machine) -> None:
    from .inference import service
    from .inference.gateway import api
    from .inference.gateway.spill import Spill
    from .inference.meters import Meters
    from .inference.open_inference.rpc_port import rpc_port
    from .inference.sessions import Sessions

    without_blas()
    meters, settings = Meters(), machine.settings
    sessions, online = Sessions(machine.artefacts, meters), OnlineFeatures(machine.topics, machine.store)
    warming = machine.beside(online.warm, "reads are being compiled")
    spill = Spill(settings.data / "spill" / (settings.instance or "0"), settings.spill) if settings.spill else None
    machine.lanes(service.lanes(machine.topics, machine.log, machine.store, sessions, meters, now, machine.tracing))
    machine.app = app = api.gateway(
        machine.topics, machine.log, sessions, meters, online.rows, spill, settings.features_required, machine.tracing,
        settings.trace_sample, warming, settings.record_tensors,
    )  # fmt: skip
    if port := settings.inference_grpc_port:
        answering = rpc_port(app.state.open_inference, settings.http_host, port, Access.of(settings))

        async def rpc() -> None:
            async with answering:
                await machine.stop.wait()

        machine.tasks.append(rpc)


def monitoring(machine: Machine) -> None:
    from penstock.alerts.routes import routes_of

    from .monitoring import service
    from .monitoring.courier import Courier

    topics, settings = machine.topics, machine.settings
    lanes = service.lanes(
        topics.project, topics, machine.log, machine.store, settings.idle_after, machine.tracing, machine.artefacts,
        micros(settings.alert_window), micros(settings.alert_repeat) if settings.alert_repeat else 0,
    )  # fmt: skip
    for route in routes_of(settings):
        courier = Courier(route, topics, machine.log, machine.store, lambda: bool(lanes[-1].holds))
        machine.tasks.append(partial(courier.run, machine.stop))
    machine.app = application("penstock monitoring", machine.lanes(lanes), waiting=machine.waiting)


def trainer(machine: Machine) -> None:
    from .trainer.service import LONGEST, Trainer

    seed = machine.settings.seed
    _control(machine, Trainer(machine.topics, machine.log, machine.artefacts, background=True, seed=seed, clock=now), LONGEST)


def registry(machine: Machine) -> None:
    from .registry.service import Registry

    _control(machine, Registry(machine.topics))


def dashboard(machine: Machine) -> None:
    from .dashboard.service import app

    machine.app = app(machine.topics, machine.log)


def _control(machine: Machine, control: Control, longest: float = 60.0) -> None:
    """Run a control as a Faust app."""
    settings, name = machine.settings, f"{machine.topics.prefix}.{machine.service}"
    folder, brokers = settings.data / "faust", settings.kafka_bootstrap_servers
    agents = Agents(control, name, brokers, machine.log, folder, settings.instance or "0", longest, settings.security)
    machine.tasks.append(lambda: agents.run(machine.stop))
    machine.app = application(f"penstock {machine.service}", agents.missing)


BUILD = {f.__name__: f for f in (feature_store, inference, monitoring, trainer, registry, dashboard)}
PARTS = {f.__name__: f for f in (archive, backfill)}
"""What runs in a process of its own, and is no service."""


async def topics_there(log: KafkaLog, project: Project) -> Topics:
    """The project's topics with the partition count that they were created with; Unreachable when they do not exist."""
    there = await log.describe()
    missing = [t.name for t in Topics(project).all() if t.name not in there]
    if missing:
        raise Unreachable(
            f"{len(missing)} topics of {project.name} do not exist on the broker, such as {missing[0]}",
            "create them with: penstock topics apply",
        )
    return Topics(project, there[project.events[0].topic])


def stopped_by_signals(stop: asyncio.Event) -> None:
    """Set `stop` at the first SIGTERM or SIGINT; the second one does what signals do."""
    loop, numbers = asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGINT)

    def told() -> None:
        stop.set()
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in numbers:
        loop.add_signal_handler(number, told)


async def main(service: str, settings: Settings) -> None:
    """Run one service until SIGTERM or SIGINT, then let it come to a whole end."""
    for name, value in (
        ("KAFKA_BOOTSTRAP_SERVERS", settings.kafka_bootstrap_servers),
        ("REDIS_URL", settings.redis_url.get_secret_value()),
    ):
        if not value:
            raise SettingError(f"{name} is not set", "set it, or run everything on this machine with: penstock up")
    brokers, instance, project = settings.kafka_bootstrap_servers, settings.instance or None, load(settings.project)
    if instance and (service == "feature_store" or service in PARTS):  # generations share groups, and must not be taken for one
        instance = f"{instance}.{project.topology.generation}"
    log = KafkaLog(brokers, f"penstock-{service}", instance=instance, security=settings.security)
    machine = None
    try:
        machine = Machine(service, settings, await topics_there(log, project), log)
        (BUILD | PARTS)[service](machine)
        stopped_by_signals(machine.stop)
        await work(machine)
    finally:
        if machine is not None:
            machine.tracing.close()
            await machine.store.close()
        await log.close()


def _http(machine: Machine) -> Any:
    """The HTTP server of a service, behind its door."""
    from penstock.runtime.server import Transport, server

    settings = machine.settings
    labels = {model.label.event.topic for model in machine.topics.project.models}
    app = Access.of(settings).door(machine.app, settings.http_host, labels)
    transport = Transport(settings.http_certificate, settings.http_certificate_key)
    return server(app, settings.http_host, settings.port_of(machine.service), transport)


async def work(machine: Machine) -> None:
    """Do a service's work until `machine.stop` is set or a part of it ends, which raises what that raised."""
    servers = [] if machine.app is None else [_http(machine)]
    tasks = [asyncio.ensure_future(start()) for start in (*(server.serve for server in servers), *machine.tasks)]
    stopping = asyncio.ensure_future(machine.stop.wait())
    try:
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        machine.stop.set()
        for server in servers:
            server.should_exit = True
        await asyncio.wait([stopping, *tasks], timeout=SETTLING)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=CUTTING)


def run(service: str) -> None:
    """Run a service in this process. Raises PenstockError in words."""
    if service not in BUILD | PARTS:
        raise SettingError(f"there is no service {service!r}", f"there are: {', '.join(SERVICES)}")
    settings = load_settings()
    if service in BUILD:
        Access.of(settings).check(settings.http_host)
    logs(service, settings.log_level)
    priced(settings.cpu_hour_price)
    gc.set_threshold(100_000, 50, 100)  # batches are large and die together: the default looks at them twenty times too often
    asyncio.run(main(service, settings))


if __name__ == "__main__":
    try:
        run(sys.argv[1] if len(sys.argv) > 1 else "")
    except PenstockError as error:
        print(f"{error}\n-> {error.fix}", file=sys.stderr)
        sys.exit(error.exit_code)
