"""A real Apache Kafka on this machine without Docker: one KRaft node from Maven jars."""

import os
import re
import shutil
import struct
import tempfile
import time
from importlib import resources
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, CompletedProcess, TimeoutExpired, run
from typing import ClassVar, Final

from . import port as ports
from .process import LocalError, last_words
from .server import LocalServer

__all__ = ["VERSION", "LocalKafka", "available", "fetch", "java", "java_version", "listeners"]

VERSION: Final = "4.3.0"  # as in pom.xml; a test compares them
OLDEST_JAVA: Final = 17
CLUSTER: Final = "cGVuc3RvY2stbG9jYWwtLQ"  # any 16 bytes in base64, the same in every start: one node meets no other
LARGEST_RECORD: Final = 32 * 1024 * 1024  # blocks between hops reach 16 MiB; head and keys come on top
WITHOUT: Final = "docker compose up -d --wait kafka   or without any broker:  penstock demo --embedded"
NO_JAVA: Final = (
    f"no Java {OLDEST_JAVA} or later on PATH or in JAVA_HOME -> apt-get install default-jre-headless   or   {WITHOUT}"
)

SETTINGS: Final = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",  # topics come from the declaration, by `penstock topics apply`
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",  # the default waits 3 s for members that a test does not have
    # After a crash the controller keeps the dead broker's seat so long before it lets the new one in (default 9 s).
    "broker.session.timeout.ms": "5000",
    "broker.heartbeat.interval.ms": "1000",
    "message.max.bytes": str(LARGEST_RECORD),
    "replica.fetch.max.bytes": str(LARGEST_RECORD),
    # Retention goes by the record's time, and replayed events are years old: the default would delete them at once.
    "log.retention.ms": "-1",
    # Internal topics have 50 partitions each by default: files, memory and start-up time that one machine can spare.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),  # from the heap; the default is 128 MiB
}

# Kafka says a lot at INFO. What is wrong, and that it has started, is what a person looks for in kafka.log.
LOGGING: Final = """\
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %-5p %m (%c)%n
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=info
"""


class LocalKafka(LocalServer):
    """One Kafka broker on the loopback interface, its own controller, data in `folder/data`."""

    name: ClassVar[str] = "kafka"
    start_seconds: ClassVar[float] = 60.0  # 5 s once the jars are here; the rest is for the first download
    stop_seconds: ClassVar[float] = 15.0

    @property
    def bootstrap(self) -> str:
        """Where it listens, as KAFKA_BOOTSTRAP_SERVERS wants it."""
        return f"{ports.LOOPBACK}:{self.port}"

    def _prepare(self, deadline: float) -> None:
        self._jars = fetch(deadline - time.monotonic())
        if not self.port and self._properties.exists():  # as it was the last time: clients know it
            found = re.search(r"advertised.listeners=.*:(\d+)", self._properties.read_text())
            self.port = int(found[1]) if found else 0

    def _command(self) -> list[str]:
        controller = f"{ports.LOOPBACK}:{ports.free()}"
        places = {
            "log.dirs": str(self.folder / "data"),
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.quorum.bootstrap.servers": controller,
        }
        lines = (f"{key}={value}\n" for key, value in {**SETTINGS, **places}.items())
        self._properties.write_text("".join(lines), encoding="utf-8")
        (self.folder / "log4j2.properties").write_text(LOGGING, encoding="utf-8")
        self._format()
        return self._java("-Xms128m", "-Xmx768m", "kafka.Kafka", str(self._properties))

    def _answers(self) -> bool:
        return bool(listeners(ports.LOOPBACK, self.port, timeout=2.0))

    def _format(self) -> None:
        """Give the data folder its cluster id, once; a format cut short is repeated."""
        done = self.folder / "formatted"
        if done.exists():
            return
        quick = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]  # lives for a second: 0.9 s, not 1.5
        command = self._java(*quick, "kafka.tools.StorageTool", "format", "--standalone", "--ignore-formatted")
        answer = _run([*command, "-t", CLUSTER, "-c", str(self._properties)], seconds=30.0)
        if answer.returncode != 0:
            raise LocalError(
                f"Kafka cannot format {self.folder / 'data'}: {last_words(answer.stdout)}",
                f"start with an empty folder:  rm -r {self.folder}",
            )
        done.touch()

    def _java(self, *arguments: str) -> list[str]:
        program = java()
        if program is None:
            raise LocalError.of(NO_JAVA)
        logging = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"
        return [program, logging, "-cp", f"{self._jars}/*", *arguments]

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"


def available() -> str | None:
    """None when a Kafka can be started here, else why not and what to type."""
    if java() is None:
        return NO_JAVA
    if not _complete(_cache()) and shutil.which("mvn") is None:
        return f"no Kafka jars in {_cache()} and no mvn to fetch them -> apt-get install maven   or   {WITHOUT}"
    return None


def java() -> str | None:
    """The Java to run Kafka with: JAVA_HOME's, else the one on PATH; None when there is none of version 17 or later."""
    home = os.environ.get("JAVA_HOME")
    for program in (Path(home, "bin", "java").as_posix() if home else None, shutil.which("java")):
        if program is not None and java_version(program) >= OLDEST_JAVA:
            return program
    return None


def java_version(program: str) -> int:
    """The major version of a Java, 0 when it does not run."""
    try:
        answer = _run([program, "-version"], seconds=10.0)
    except LocalError:
        return 0
    found = re.search(r'version "(\d+)', answer.stdout)
    return int(found.group(1)) if found else 0


def fetch(seconds: float = 300.0) -> Path:
    """The folder with Kafka's jars, fetched by Maven the first time (45 MB)."""
    folder = _cache()
    if _complete(folder):
        return folder
    if reason := available():
        raise LocalError.of(reason)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        resources.as_file(resources.files("penstock.local") / "pom.xml") as pom,
        tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as scratch,
    ):
        target = Path(scratch, "jars")
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={target}"]
        answer = _run(["mvn", "-B", "-q", "-Dstyle.color=never", "-f", str(pom), *goal], seconds=max(seconds, 1.0))
        if answer.returncode != 0 or not _complete(target):
            raise LocalError(
                f"Maven could not fetch Kafka {VERSION}: {last_words(answer.stdout)}",
                f"check the network, then try again   or   {WITHOUT}",
            )
        try:
            target.rename(folder)  # whole or not at all
        except OSError:
            if not _complete(folder):  # else: another process was faster, and its jars are as good
                raise
    return folder


def listeners(host: str, port: int, timeout: float) -> list[tuple[str, int]]:
    """Where the brokers of the cluster behind this address tell clients to go; raises OSError when nothing answers.

    One Metadata request (version 1, no topics), spoken by hand: needs no client library. A broker counts only after
    the controller let it in, so from then on topics can be created, which an open port alone does not promise.
    """
    client = b"penstock"
    request = struct.pack(">hhih", 3, 1, 1, len(client)) + client + struct.pack(">i", 0)
    with ports.asked(host, port, struct.pack(">i", len(request)) + request, timeout) as link:
        size = link.read(4)
        length = int.from_bytes(size, "big")
        if not 0 < length < LARGEST_RECORD:
            hint = ": TLS, so set PENSTOCK_KAFKA_SECURITY_PROTOCOL" if size.startswith(b"\x15\x03") else ""
            raise ConnectionError(f"what listens there is not a plain Kafka listener{hint} (it answered {size!r})")
        answer = link.read(length)
    if len(answer) < length:
        raise ConnectionResetError(f"{host}:{port} closed the connection after {len(answer)} bytes")
    (count,), at = struct.unpack_from(">i", answer, 4), 8
    found = []
    for _ in range(count):  # node id, host, port, rack
        (length,) = struct.unpack_from(">h", answer, at + 4)
        name = answer[at + 6 : at + 6 + length]
        number, rack = struct.unpack_from(">ih", answer, at + 6 + length)
        found.append((name.decode(), int(number)))
        at += 6 + length + 6 + max(rack, 0)
    return found


def _cache() -> Path:
    root = os.environ.get("PENSTOCK_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "penstock")
    return Path(root, f"kafka-{VERSION}")


def _complete(folder: Path) -> bool:
    return (folder / f"kafka_2.13-{VERSION}.jar").exists() and any(folder.glob("log4j-core-*.jar"))


def _run(command: list[str], seconds: float) -> CompletedProcess[str]:
    """Run to the end within a time; standard output and error together."""
    try:
        return run(command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, text=True, errors="replace", timeout=seconds, check=False)
    except TimeoutExpired as error:
        raise LocalError(
            f"{Path(command[0]).name} did not finish within {seconds:.0f} s", f"try again   or   {WITHOUT}"
        ) from error
    except OSError as error:
        raise LocalError(f"cannot run {command[0]}: {error}", WITHOUT) from error
