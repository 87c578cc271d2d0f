"""A real S3 server for tests, without Docker: S3Proxy on a folder, from Maven jars that are fetched once."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import ClassVar, Final

from penstock.local.kafka import NO_JAVA, java
from penstock.local.process import LocalError, last_words
from penstock.local.server import LocalServer

__all__ = ["BUCKET", "LocalS3", "available", "fetch"]

VERSION: Final = "4.1.0"  # as in s3.xml
BUCKET: Final = "lake"
KEY, SECRET = "penstock", "penstock-secret"

SETTINGS: Final = """\
s3proxy.endpoint=http://127.0.0.1:{port}
s3proxy.authorization=aws-v2-or-v4
s3proxy.identity={key}
s3proxy.credential={secret}
jclouds.provider=filesystem-nio2
jclouds.filesystem.basedir={folder}
"""

# It says everything that Jetty does at its default level, which costs more than the work.
LOGGING: Final = """\
<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%level %msg%n</pattern></encoder></appender>
  <root level="warn"><appender-ref ref="out"/></root>
</configuration>
"""


class LocalS3(LocalServer):
    """One bucket on the loopback interface, its objects as files in `folder/data`."""

    name: ClassVar[str] = "s3"
    start_seconds: ClassVar[float] = 60.0
    stop_seconds: ClassVar[float] = 5.0

    @property
    def environment(self) -> dict[str, str]:
        """The standard variables that say where it is and who asks."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def _prepare(self, deadline: float) -> None:
        self._jars = fetch()
        (self.folder / "data" / BUCKET).mkdir(parents=True, exist_ok=True)
        (self.folder / "logback.xml").write_text(LOGGING)

    def _command(self) -> list[str]:
        program = java()
        if program is None:
            raise LocalError.of(NO_JAVA)
        said = SETTINGS.format(port=self.port, key=KEY, secret=SECRET, folder=self.folder / "data")
        (self.folder / "s3.properties").write_text(said)
        logging = f"-Dlogback.configurationFile={self.folder / 'logback.xml'}"
        return [program, "-Xmx256m", logging, "-cp", f"{self._jars}/*", "org.gaul.s3proxy.Main",
                "--properties", str(self.folder / "s3.properties")]  # fmt: skip

    def _answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True


def available() -> str | None:
    """None when it can be started here, else why not and what to type."""
    if java() is None:
        return NO_JAVA
    if not _complete(_cache()) and shutil.which("mvn") is None:
        return f"no S3Proxy jars in {_cache()} and no mvn to fetch them -> apt-get install maven"
    return None


def fetch(seconds: float = 300.0) -> Path:
    """The folder with its jars, fetched by Maven the first time (57 MB)."""
    folder = _cache()
    if _complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as scratch:
        target = Path(scratch, "jars")
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={target}"]
        command = ["mvn", "-B", "-q", "-Dstyle.color=never", "-f", str(Path(__file__).with_name("s3.xml")), *goal]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        if done.returncode or not _complete(target):
            raise LocalError(f"Maven could not fetch S3Proxy: {last_words(done.stdout)}", "check the network, then try again")
        try:
            target.rename(folder)  # whole or not at all
        except OSError:
            if not _complete(folder):  # else: another process was faster
                raise
    return folder


def _cache() -> Path:
    root = os.environ.get("PENSTOCK_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "penstock")
    return Path(root, f"s3proxy-{VERSION}")


def _complete(folder: Path) -> bool:
    return (folder / f"s3proxy-{VERSION}.jar").exists()


if __name__ == "__main__":
    print("S3Proxy:", fetch())
