"""A Kafka and a Redis that want TLS, and name and password, with certificates made here by openssl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from penstock.local import port as ports
from penstock.local.kafka import LocalKafka
from penstock.local.redis import LocalRedis

__all__ = ["NAME", "PASSWORD", "SecureKafka", "SecureRedis", "available", "certify"]

NAME, PASSWORD = "ada", "lovelace"

CERTIFICATE: Final = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout {key} -out {cert} "
    "-subj /CN=penstock -addext subjectAltName=IP:127.0.0.1"
)


def available() -> str | None:
    """None when certificates can be made here."""
    return None if shutil.which("openssl") else "no openssl on PATH"


def certify(folder: Path) -> Path:
    """`cert.pem`, signed by itself and so its own authority, `key.pem`, and `both.pem`, as Kafka reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(CERTIFICATE.format(key=key, cert=cert).split(), check=True, capture_output=True, timeout=30)
    (folder / "both.pem").write_text(key.read_text() + cert.read_text())
    return folder


class SecureKafka(LocalKafka):
    """Beside its plain listener one for each way to prove oneself; `at[protocol]` says where."""

    def __init__(self, folder: Path, keys: Path) -> None:
        super().__init__(folder)
        self.keys, self.at = keys, dict[str, str]()

    def _command(self) -> list[str]:
        found = super()._command()
        written = dict(line.split("=", 1) for line in self._properties.read_text().splitlines())
        self.at = {protocol: f"{ports.LOOPBACK}:{ports.free()}" for protocol in ("SSL", "SASL_SSL", "SASL_PLAINTEXT")}
        more = ",".join(f"{protocol}://{address}" for protocol, address in self.at.items())
        plain = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{NAME}="{PASSWORD}";'
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        said = {
            "listeners": f"{written['listeners']},{more}",
            "advertised.listeners": f"{written['advertised.listeners']},{more}",
            "listener.security.protocol.map": ",".join(
                f"{name}:{protocol}" for name, protocol in {**{p: p for p in self.at}, "PLAINTEXT": "PLAINTEXT"}.items()
            )
            + ",CONTROLLER:PLAINTEXT",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.keys / "both.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.keys / "cert.pem"),
            "listener.name.ssl.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            **{f"listener.name.{p}.plain.sasl.jaas.config": plain for p in ("sasl_ssl", "sasl_plaintext")},
            **{f"listener.name.{p}.scram-sha-512.sasl.jaas.config": scram for p in ("sasl_ssl", "sasl_plaintext")},
        }
        with self._properties.open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in said.items())  # the later line of a name counts
        return found

    def _java(self, *arguments: str) -> list[str]:
        scram = ["--add-scram", f"SCRAM-SHA-512=[name={NAME},password={PASSWORD}]"] if "format" in arguments else []
        return [*super()._java(*arguments), *scram]


class SecureRedis(LocalRedis):
    """TLS beside the plain port."""

    def __init__(self, folder: Path, keys: Path) -> None:
        super().__init__(folder)
        self.keys, self.tls_port = keys, 0

    @property
    def secure_url(self) -> str:
        return f"rediss://{ports.LOOPBACK}:{self.tls_port}/0?ssl_ca_certs={self.keys / 'cert.pem'}"

    def _command(self) -> list[str]:
        self.tls_port = ports.free()
        said: dict[str, Any] = {
            "tls-port": self.tls_port,
            "tls-cert-file": self.keys / "cert.pem",
            "tls-key-file": self.keys / "key.pem",
            "tls-ca-cert-file": self.keys / "cert.pem",
            "tls-auth-clients": "no",
        }
        return [*super()._command(), *(word for name, value in said.items() for word in (f"--{name}", str(value)))]
