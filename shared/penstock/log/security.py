"""How a client proves itself to Kafka's brokers, and they to it: TLS and SASL, as settings say.

    PLAINTEXT        neither; for a network that nobody else is on
    SSL              TLS: the broker shows a certificate, and so does the client where `certificate` is given
    SASL_PLAINTEXT   name and password, readable by whoever listens
    SASL_SSL         name and password inside TLS; what hosted Kafka wants

The broker's certificate and its host name are always verified, against `ca` or else what the system trusts.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import SettingError

__all__ = ["PLAIN", "Security"]


@dataclass(frozen=True, slots=True)
class Security:
    """What a client says of itself, and whom it trusts; files are PEM. SettingError where that does not go together."""

    protocol: str = "PLAINTEXT"
    ca: str = ""
    certificate: str = ""
    key: str = ""
    mechanism: str = "PLAIN"
    username: str = ""
    password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.sasl and not (self.username and self.password):
            missing = "USERNAME" if not self.username else "PASSWORD"
            raise SettingError(f"{self.protocol} needs a user and a password", f"export PENSTOCK_KAFKA_SASL_{missing}=...")

    @property
    def tls(self) -> bool:
        return self.protocol in ("SSL", "SASL_SSL")

    @property
    def sasl(self) -> bool:
        return self.protocol.startswith("SASL_")

    def context(self) -> ssl.SSLContext | None:
        """What TLS needs; None without it."""
        if not self.tls:
            return None
        what = "PENSTOCK_KAFKA_SSL_CA"
        try:
            made = ssl.create_default_context(cafile=self.ca or None)
            if self.certificate:
                what = "PENSTOCK_KAFKA_SSL_CERTIFICATE and PENSTOCK_KAFKA_SSL_KEY"
                made.load_cert_chain(self.certificate, self.key or None)
        except (OSError, ssl.SSLError) as error:
            files = self.ca if what.endswith("_CA") else f"{self.certificate}, {self.key}"
            raise SettingError(f"{what} cannot be used ({files}): {error}", "name files in PEM form that can be read") from error
        return made

    def client(self) -> dict[str, Any]:
        """As a client of aiokafka takes it."""
        said: dict[str, Any] = {"security_protocol": self.protocol, "ssl_context": self.context()}
        if self.sasl:
            said |= {"sasl_mechanism": self.mechanism, "sasl_plain_username": self.username, "sasl_plain_password": self.password}
        return said


PLAIN: Final = Security()
"""Neither TLS nor SASL."""
