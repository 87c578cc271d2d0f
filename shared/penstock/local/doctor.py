"""What `penstock doctor` looks at before anything is started. Every finding says what to type.

Nothing heavy is imported and nothing is changed: no topic is made, no key written. All checks together take about as
long as the slowest, which has two seconds.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Final

from ..errors import PenstockError, SettingError
from ..log.security import PLAIN, Security
from ..settings import SERVICES
from . import kafka as local_kafka
from . import port as local_port
from . import redis as local_redis

__all__ = ["SECONDS", "Check", "endpoint", "examine", "exit_code", "reason", "without_password"]

SECONDS: Final = 2.0  # for whoever is asked over the network; a healthy local one answers in milliseconds
PYTHONS: Final = ((3, 11), (3, 14))  # from, and below; as pyproject.toml says and a test compares
LEAST_DISK: Final = 2 * 10**9  # jars, a demo's log and its tables take about 1 GB
MOST_SKEW: Final = 1.0  # seconds; rollout and windows run on event time, so only health and logs suffer from more
START: Final = "penstock up   or   docker compose up -d --wait kafka redis   or without both:  penstock demo --embedded"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `ok` is None where it is only told: not needed here, or not possible to say."""

    name: str
    ok: bool | None
    detail: str
    fix: str = ""


def examine(
    bootstrap: str | None,
    redis_url: str | None,
    ports: Mapping[str, int],
    data: Path,
    tables: str = "",
    security: Security = PLAIN,
) -> list[Check]:
    """Every check, in the order in which a person should read them."""
    looks: list[Callable[[], Check]] = [
        python,
        *(partial(packages, extra) for extra in SERVICES),
        partial(broker, bootstrap, security),
        partial(redis, redis_url),
        partial(clock, redis_url),
        *(partial(free_port, name, port) for name, port in ports.items()),
        java,
        maven,
        redis_server,
        docker,
        partial(disk, data),
        partial(folder, data),
        *([partial(offline, tables)] if tables else []),
    ]
    with ThreadPoolExecutor(len(looks)) as pool:
        return list(pool.map(lambda look: look(), looks))


def exit_code(checks: Sequence[Check]) -> int:
    """0 when nothing is wrong, 3 when a broker, Redis or the offline tables cannot be used, else 1."""
    failed = {check.name for check in checks if check.ok is False}
    return 3 if failed & {"kafka", "redis", "tables"} else int(bool(failed))


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """The interpreter's version."""
    lowest, above = PYTHONS
    text = ".".join(map(str, version))
    if lowest <= version < above:
        return Check("python", True, text)
    wanted = f"{lowest[0]}.{lowest[1]} to {above[0]}.{above[1] - 1}"
    return Check("python", False, f"{text}, and Penstock runs on {wanted}", "make setup PYTHON=python3.12")


def packages(extra: str) -> Check:
    """Whether what one service needs is installed."""
    try:
        wanted = _required(metadata.requires("penstock") or [], extra)
    except metadata.PackageNotFoundError:
        return Check(f"packages {extra}", False, "penstock itself is not installed", "make setup")
    missing = sorted(name for name in wanted if not _installed(name))
    if not missing:
        return Check(f"packages {extra}", True, f"{len(wanted)} of {len(wanted)}")
    return Check(f"packages {extra}", False, f"missing: {', '.join(missing)}", f'pip install "penstock[{extra}]"')


def called(host: str, port: int, security: Security) -> list[tuple[str, int]]:
    """Where the brokers behind an address send clients to; OSError says why none answers or takes us."""
    if security == PLAIN:
        return local_kafka.listeners(host, port, SECONDS)
    from ..log._kafka_call import called as securely

    return securely(host, port, security, SECONDS)


def broker(bootstrap: str | None, security: Security = PLAIN) -> Check:
    """Ask Kafka for its brokers, then call at each address that it hands out, as every client will."""
    if not bootstrap:
        return Check("kafka", None, "KAFKA_BOOTSTRAP_SERVERS is not set: penstock starts one, or runs without", START)
    problem = ""
    for address in bootstrap.split(","):
        began = time.monotonic()
        try:
            found = called(*endpoint(address), security)
        except SettingError as error:
            return Check("kafka", False, str(error), error.fix)
        except ImportError as error:
            return Check("kafka", False, f"the client is not installed: {error}", 'pip install "penstock[kafka]"')
        except (OSError, ValueError) as error:
            problem = f"{address}: {reason(error)}"
            continue
        how = "" if security == PLAIN else f"  {security.protocol}"
        taken = f"{address}{how}  {len(found)} broker(s)  round trip {(time.monotonic() - began) * 1000:.0f} ms"
        if not found:
            what = f"{address} listens, but no broker is in service yet"
            return Check("kafka", False, what, "wait, then again:  penstock doctor")
        for name, number in found:
            try:
                socket.create_connection((name, number), timeout=SECONDS).close()
            except OSError:
                what = f"{address} answers, but sends clients to {name}:{number}, which cannot be reached from here"
                fix = f"use the listener meant for this machine, or correct advertised.listeners of the broker ({name})"
                return Check("kafka", False, what, fix)
        return Check("kafka", True, taken)
    return Check(
        "kafka", False, problem, START if security == PLAIN else "penstock config show   and compare with the broker's listener"
    )


def redis(url: str | None) -> Check:
    """A round trip to Redis, and whether it may forget what it was given."""
    if not url:
        return Check("redis", None, "REDIS_URL is not set: penstock starts one, or runs without", START)
    try:
        from redis import Redis, RedisError
    except ImportError:
        return Check("redis", False, "the client is not installed", 'pip install "penstock[store]"')
    try:
        with Redis.from_url(url, socket_timeout=SECONDS, socket_connect_timeout=SECONDS) as client:
            began = time.monotonic()
            client.ping()
            taken = (time.monotonic() - began) * 1000
            facts = client.info()
    except (RedisError, OSError, ValueError) as error:
        return Check("redis", False, f"{without_password(url)}: {reason(error)}", START)
    detail = f"{without_password(url)}  {facts.get('redis_version', '?')}  round trip {taken:.1f} ms"
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        what = f"{detail}, but maxmemory-policy is {policy}: it would drop state when full"
        return Check("redis", False, what, "redis-cli config set maxmemory-policy noeviction")
    return Check("redis", True, detail)


def clock(redis_url: str | None) -> Check:
    """This machine's clock beside Redis's, the one other clock at hand."""
    if not redis_url:
        return Check("clock", None, f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')}; no other clock to compare with")
    try:
        from redis import Redis

        with Redis.from_url(redis_url, socket_timeout=SECONDS, socket_connect_timeout=SECONDS) as client:
            client.ping()  # so that connecting is not part of what is measured
            before = time.time()
            seconds, microseconds = client.time()
            after = time.time()
    except Exception as error:  # told as Redis's own failure
        return Check("clock", None, f"no other clock to compare with: {reason(error)}")
    skew = seconds + microseconds / 1e6 - (before + after) / 2
    well = abs(skew) < MOST_SKEW
    return Check("clock", well, f"{skew * 1000:+.0f} ms against Redis", "" if well else "timedatectl set-ntp true")


def free_port(name: str, port: int) -> Check:
    """Whether one of our services could listen here."""
    if local_port.is_free(port):
        return Check(f"port {port}", True, f"free for {name}")
    return Check(f"port {port}", False, f"taken; {name} wants it", f"see by whom:  ss -ltnp 'sport = :{port}'")


def java() -> Check:
    """A Java that Kafka runs on; needed only to run a broker here without Docker."""
    program = local_kafka.java()
    if program is None:
        return Check("java", None, "none of version 17 or later", "apt-get install default-jre-headless")
    return Check("java", True, f"{local_kafka.java_version(program)}  {program}")


def maven() -> Check:
    """How Kafka's jars get here the first time."""
    program = shutil.which("mvn")
    if program is None and local_kafka.available() is None:
        return Check("maven", True, "not needed any more: Kafka's jars are here")
    return Check("maven", True, program) if program else Check("maven", None, "not on PATH", "apt-get install maven")


def redis_server() -> Check:
    """A Redis to start here; needed only without REDIS_URL and without Docker."""
    what, _, fix = (local_redis.available() or "on PATH").partition(" -> ")
    return Check("redis-server", None if fix else True, what, fix)


def docker() -> Check:
    """Whether `docker compose up` would work."""
    if shutil.which("docker") is None:
        return Check("docker", None, "not on PATH; needed only for docker compose")
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("docker", None, f"does not answer: {reason(error)}", "start the Docker daemon")
    if answer.returncode != 0:
        return Check("docker", None, "installed, but its daemon does not answer", "start the Docker daemon")
    return Check("docker", True, answer.stdout.strip())


def disk(data: Path) -> Check:
    """Room for the log and the tables."""
    place = data.absolute()
    while not place.exists():
        place = place.parent
    room = shutil.disk_usage(place).free
    detail = f"{room / 1e9:.0f} GB free in {place}"
    if room >= LEAST_DISK:
        return Check("disk", True, detail)
    return Check("disk", False, detail, "make room, or point PENSTOCK_DATA at another disk")


def folder(data: Path) -> Check:
    """Whether PENSTOCK_DATA can be written."""
    wrong = _unwritable(data)
    return Check("data", not wrong, wrong or str(data.absolute()), "point PENSTOCK_DATA at a folder of your own" if wrong else "")


def offline(tables: str) -> Check:
    """Whether the offline tables can be written (a folder), or at least listed (a bucket: nothing is put there to try it)."""
    from ..offline.location import Location

    try:
        where = Location(tables)
        if not where.remote:
            wrong = _unwritable(Path(where.root))
            fix = "point PENSTOCK_TABLES at a folder of your own, or at s3://bucket/prefix" if wrong else ""
            return Check("tables", not wrong, wrong or where.root, fix)
        if where.endpoint:
            socket.create_connection(where.address, timeout=SECONDS).close()
        return Check("tables", True, f"{where.root}  {len(where.folders())} there; writing was not tried")
    except ImportError as error:
        return Check("tables", False, f"the client is not installed: {error}", 'pip install "penstock[feature_store]"')
    except PenstockError as error:
        return Check("tables", False, str(error), error.fix)
    except (OSError, ValueError) as error:
        return Check("tables", False, f"{tables}: {where.endpoint}: {reason(error)}", "check AWS_ENDPOINT_URL and the network")


def _unwritable(path: Path) -> str:
    """Why a folder cannot be made or written, in words; empty: it can."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return f"{path} cannot be made: {place} is no folder"
    if not os.access(place, os.W_OK | os.X_OK):
        return f"{path} cannot be written: {place} belongs to another user, or is read-only"
    return ""


def _required(requirements: Sequence[str], extra: str) -> set[str]:
    """The distributions that an extra stands for, through the extras that it names in turn.

    >>> sorted(_required(["numpy>=2", 'penstock[kafka]; extra == "a"', 'aiokafka<1; extra == "kafka"'], "a"))
    ['aiokafka', 'numpy']
    """
    found: set[str] = set()
    for requirement in requirements:
        text, _, condition = requirement.partition(";")
        only = re.search(r"""extra\s*==\s*['"]([\w-]+)['"]""", condition)
        if only and only.group(1).replace("-", "_") != extra.replace("-", "_"):
            continue
        parts = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[([^]]*)\])?", text)
        assert parts is not None  # a distribution's metadata names what it requires
        name, inner = parts.group(1), parts.group(2)
        if name.lower() == "penstock":
            found.update(*(_required(requirements, part.strip()) for part in (inner or "").split(",")))
        else:
            found.add(name)
    return found


def _installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def endpoint(text: str) -> tuple[str, int]:
    """Host and port of `host:port`.

    >>> endpoint("[::1]:9092")
    ('::1', 9092)
    """
    host, _, port = text.strip().rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{text!r} is not written as host:port")
    return host.strip("[]"), int(port)


def without_password(url: str) -> str:
    """A URL that may be shown.

    >>> without_password("redis://ada:lovelace@cache:6379/0")
    'redis://***@cache:6379/0'
    """
    return re.sub(r"//[^/]*@", "//***@", url)


def reason(error: Exception) -> str:
    """Why nobody answered, in words."""
    if isinstance(error, TimeoutError | subprocess.TimeoutExpired) or "timed out" in str(error).lower():
        return f"no answer within {SECONDS:.0f} s"
    if "refused" in str(error).lower():
        return "connection refused: nothing listens there"
    return str(error) or type(error).__name__
