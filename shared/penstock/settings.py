"""Settings: where things are. What a project means is in the project file, never here.

Each is an environment variable `PENSTOCK_<NAME>`; the three that every tool knows by another name keep it. In development
a `.env` file in the working folder is read too. `penstock config show` prints each value and where it came from.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from .doors.scopes import RATE
from .duration import micros
from .errors import SettingError
from .log.security import PLAIN, Security

__all__ = ["SERVICES", "Settings", "load"]

SERVICES = ("feature_store", "inference", "monitoring", "trainer", "registry", "dashboard")
"""In the order in which data flows, which is the order in which they start."""


class Settings(BaseSettings):
    """All settings of all services."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_", env_file=".env", extra="ignore", use_attribute_docstrings=True)

    project: str = "penstock.examples.flights"
    """Module or .py file that holds `project = ps.Project(...)`."""

    kafka_bootstrap_servers: str = Field(
        "", validation_alias=AliasChoices("KAFKA_BOOTSTRAP_SERVERS", "PENSTOCK_KAFKA_BOOTSTRAP_SERVERS")
    )
    """Brokers, host:port separated by commas. Empty: start one here, or run embedded."""

    kafka_security_protocol: str = Field("PLAINTEXT", pattern="^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$")
    """How to talk to the brokers: PLAINTEXT, SSL (TLS), SASL_PLAINTEXT or SASL_SSL. For brokers named above."""

    kafka_ssl_ca: str = ""
    """PEM file of the authority that signed the brokers' certificates. Empty: those that the system trusts."""

    kafka_ssl_certificate: str = ""
    """PEM file of this client's own certificate, where brokers ask for one. Empty: none."""

    kafka_ssl_key: str = ""
    """PEM file of its key, not encrypted. Empty: it is in the file of the certificate."""

    kafka_sasl_mechanism: str = Field("PLAIN", pattern="^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)$")
    """PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."""

    kafka_sasl_username: str = ""
    """Who we are to the brokers."""

    kafka_sasl_password: SecretStr = SecretStr("")
    """And the password for that."""

    redis_url: SecretStr = Field(SecretStr(""), validation_alias=AliasChoices("REDIS_URL", "PENSTOCK_REDIS_URL"))
    """The online store, redis://host:port/db, or rediss:// for TLS (a private authority: ?ssl_ca_certs=FILE). Empty: start one
    here, or run embedded."""

    otel_exporter_otlp_endpoint: str = Field("", validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_ENDPOINT"))
    """Where traces go (OTLP over HTTP), such as http://127.0.0.1:4318. Empty: nowhere."""

    data: Path = Path(".penstock")
    """Folder for models, offline tables, logs and local brokers."""

    signing_key: str = ""
    """PEM file of the Ed25519 key with which the trainer signs artefacts (see penstock.signing). Empty: they are not signed."""

    public_keys: str = ""
    """PEM file of the Ed25519 keys whose artefacts are loaded; others are refused. Empty: unsigned ones are loaded, too."""

    tables: str = ""
    """The offline tables: a folder, or s3://bucket/prefix with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, for
    stores other than Amazon's, AWS_ENDPOINT_URL. Empty: the folder `tables` in PENSTOCK_DATA."""

    tables_keep: str = Field("7d", pattern=r"^([1-9]\d*[hd])?$")
    """How long the archive keeps files of the offline tables that only older versions need, such as 7d or 12h; what training sets
    pin stays. Empty: for ever."""

    partitions: int = Field(4, ge=1, le=256)
    """Partitions of every topic that is shared out; fixed when the topics are created."""

    instance: str = ""
    """Name of this process among the members of its group (in a cluster the pod's). A process that comes back under its name
    gets its partitions back at once, instead of after the session timed out. Empty: none."""

    idle_after: float = Field(5.0, gt=0)
    """Seconds of silence after which a source whose publisher closes no times is passed; what then comes late is counted."""

    seed: int = Field(0, ge=0, lt=1 << 32)
    """Given to every `random_state` of a batch learner that the project leaves open; same seed, same decisions."""

    spill: int = Field(256 << 20, ge=0)
    """Bytes of answers that the gateway keeps on disk (PENSTOCK_DATA/spill) while Kafka is away; an answer takes some 800. When
    they are full, and with 0 at once (strict), it gives no answer that Kafka has not taken, but a 503."""

    record_tensors: float = Field(1.0, ge=0, le=1)
    """Share of the answers to tensors (/v2 of the gateway, gRPC) that are recorded, on <project>.inferences; those to events all
    are."""

    features_required: bool = False
    """Whether the gateway answers 503 while the online store is away. Else it answers as of entities of which nothing is known,
    by models that take missing values, and says so."""

    http_host: str = "127.0.0.1"
    """Address that HTTP servers bind. Anything but loopback is open to the network, and wants keys or tokens (below)."""

    http_keys: str = ""
    """File of API keys (`penstock keys create`). Empty: none, and on loopback nobody is asked for one."""

    http_pepper: SecretStr = SecretStr("")
    """What the keys are hashed with. Empty: it is in a file beside them, made with the first key."""

    http_jwks: str = ""
    """Keys of an identity provider whose tokens (JWT) let in, as its URL or a file. Empty: no tokens."""

    http_issuer: str = ""
    """Who makes these tokens (`iss`)."""

    http_audience: str = ""
    """Whom they are made for (`aud`): this platform's name at the provider."""

    http_algorithms: str = "RS256"
    """How they may be signed, separated by commas: RS, PS, ES with 256, 384 or 512, and EdDSA."""

    http_rate: str = Field("", pattern=f"^({RATE})?$")
    """How often a key may ask, such as 600/minute, unless it has a rate of its own. Empty: without end."""

    http_distinct: str = Field("", pattern=f"^({RATE})?$")
    """About how many different inputs a key may ask, such as 20000/day: who copies a model needs many. Empty: without end."""

    http_open: bool = False
    """Let everybody ask on any address, because something in front (a gateway with keys, a closed network) keeps others out."""

    http_certificate: str = ""
    """PEM file of the certificate for HTTPS, with its chain. Empty: plain HTTP."""

    http_certificate_key: str = ""
    """PEM file of its key. Empty: it is in the file of the certificate."""

    http_port: int = Field(0, ge=0, le=65535)
    """Port of the one service that this process runs, as in a container. 0: the service's own port below."""

    dashboard_port: int = Field(8800, ge=0, le=65535)
    """Port of the dashboard."""

    inference_port: int = Field(8801, ge=0, le=65535)
    """Port of the inference gateway."""

    inference_grpc_port: int = Field(0, ge=0, le=65535)
    """Port where the inference gateway answers the Open Inference Protocol by gRPC (penstock[grpc]), which asks for no keys: on
    loopback only, and not where HTTP has keys or tokens. 0: not."""

    feature_store_port: int = Field(8802, ge=0, le=65535)
    """Port of the feature store's read service."""

    monitoring_port: int = Field(8803, ge=0, le=65535)
    """Port of monitoring's health and metrics."""

    trainer_port: int = Field(8804, ge=0, le=65535)
    """Port of the trainer's health and metrics."""

    registry_port: int = Field(8805, ge=0, le=65535)
    """Port of the registry's health and metrics."""

    trace_sample: float = Field(0.01, ge=0, le=1)
    """Share of events that a publisher starts a trace for."""

    alert_webhook: SecretStr = SecretStr("")
    """Where alarms are posted as JSON, an http(s) URL, in the form of Standard Webhooks. Empty: nowhere."""

    alert_webhook_key: SecretStr = SecretStr("")
    """What these posts are signed with: whsec_ and 16 to 64 bytes in base64. Empty: they are not signed."""

    alert_slack: SecretStr = SecretStr("")
    """URL of an incoming webhook of Slack, or of something that takes the same (Mattermost, Rocket.Chat). Empty: none."""

    alert_smtp: SecretStr = SecretStr("")
    """Mail server for alarms: smtp://USER:PASSWORD@HOST:587 (STARTTLS), smtps:// (TLS at once), or smtp+plain:// for a relay on
    this machine. Empty: no mail."""

    alert_from: str = ""
    """Whom these letters are from."""

    alert_to: str = ""
    """And to whom they go: addresses separated by commas."""

    alert_ca: str = ""
    """PEM file of the authority that signed the certificates of these servers. Empty: those that the system trusts."""

    alert_window: str = Field("1h", pattern=r"^[1-9]\d*[smhd]$")
    """New alarms of one cause are told together, once in this long of stream time."""

    alert_repeat: str = Field("7d", pattern=r"^([1-9]\d*[hd])?$")
    """After how much stream time people are told again of an alarm that lasts. Empty: never."""

    cpu_hour_price: float = Field(0.0, ge=0)
    """What an hour of one core costs, in the currency of your bill; metrics tell the price of 1,000 answers. 0: only CPU
    seconds are told."""

    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")
    """Least severity that is logged."""

    @property
    def security(self) -> Security:
        """How to talk to the brokers named; one that was started here is plain."""
        if self.kafka_security_protocol == PLAIN.protocol:
            return PLAIN
        return Security(
            protocol=self.kafka_security_protocol,
            ca=self.kafka_ssl_ca,
            certificate=self.kafka_ssl_certificate,
            key=self.kafka_ssl_key,
            mechanism=self.kafka_sasl_mechanism,
            username=self.kafka_sasl_username,
            password=self.kafka_sasl_password.get_secret_value(),
        )

    @property
    def offline(self) -> str:
        """Where the offline tables are."""
        return self.tables or str(self.data / "tables")

    @property
    def keep(self) -> timedelta | None:
        """`tables_keep` as a length of time."""
        return timedelta(microseconds=micros(self.tables_keep)) if self.tables_keep else None

    def port_of(self, service: str) -> int:
        """The HTTP port of a service."""
        port: int = self.http_port or getattr(self, f"{service}_port")
        return port


def load(**overrides: Any) -> Settings:
    """The settings in force; SettingError lists every wrong one at once, in words."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        wrong = [
            f"{'.'.join(str(p) for p in e['loc']) or 'settings'}: {e['msg'].lower()}, got {e['input']!r}" for e in error.errors()
        ]
        raise SettingError(
            "; ".join(wrong), "correct the environment variables (or .env) and see: penstock config show"
        ) from None
