"""Routes to people: where the settings say that messages go.

A route is asked to send, and says what the other side answered. What goes wrong is of two kinds:

Delayed         the other side is away, busy or asks for patience; the same message may go through later
Undeliverable   it will not: a wrong address, a refused login, a certificate that nobody vouches for
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from ..errors import SettingError

if TYPE_CHECKING:
    from ..settings import Settings
    from .message import Message

__all__ = ["SECONDS", "Delayed", "Route", "Undeliverable", "routes_of"]

SECONDS: Final = 10.0
"""How long the other side may be silent; three times that for all of an attempt."""


class Delayed(Exception):
    """Not now. `after`: seconds that the other side asked to wait; 0 where it said nothing."""

    def __init__(self, what: str, after: float = 0.0) -> None:
        super().__init__(what)
        self.after = after


class Undeliverable(Exception):
    """Never: what is wrong stays wrong until somebody mends it."""


class Route(Protocol):
    """A way to people. `place` may be shown: it holds no secret."""

    name: str
    place: str

    async def send(self, message: Message) -> str:
        """Send it, at least once; what the other side said. Raises Delayed or Undeliverable."""
        ...


def routes_of(settings: Settings) -> list[Route]:
    """The routes that are declared; SettingError for one that cannot be."""
    return list(_routes(settings))


def _routes(settings: Settings) -> Iterator[Route]:
    if url := settings.alert_webhook.get_secret_value():
        from .hooks import Webhook, key_of

        _http(url, "PENSTOCK_ALERT_WEBHOOK")
        yield Webhook(url, key_of(settings.alert_webhook_key.get_secret_value()), _trusted(settings.alert_ca))
    if url := settings.alert_slack.get_secret_value():
        from .hooks import Slack

        _http(url, "PENSTOCK_ALERT_SLACK")
        yield Slack(url, _trusted(settings.alert_ca))
    if url := settings.alert_smtp.get_secret_value():
        from .mail import SCHEMES, Mail

        found = _split(url)
        if found is None or found.scheme not in SCHEMES or not found.hostname:
            raise SettingError(
                "PENSTOCK_ALERT_SMTP is no address of a mail server",
                "smtp://USER:PASSWORD@HOST:587 (STARTTLS), smtps://... (TLS at once), or smtp+plain://127.0.0.1:25; "
                "in a password write %2F for /, %40 for @",
            )
        to = [address.strip() for address in settings.alert_to.split(",") if address.strip()]
        for name, addresses in (("PENSTOCK_ALERT_FROM", [settings.alert_from]), ("PENSTOCK_ALERT_TO", to)):
            if not addresses or not all(_ADDRESS.fullmatch(address) for address in addresses):
                raise SettingError(f"{name} is {', '.join(addresses) or 'not set'}", f"export {name}=ada@example.org")
        user, password = unquote(found.username or ""), unquote(found.password or "")
        if user and found.scheme == "smtp+plain" and found.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise SettingError(
                "PENSTOCK_ALERT_SMTP would send a password in the clear",
                "smtp:// (STARTTLS) or smtps:// instead of smtp+plain://",
            )
        yield Mail(found.scheme, found.hostname, found.port or SCHEMES[found.scheme], user, password,
                   settings.alert_from, to, _trusted(settings.alert_ca))  # fmt: skip


_ADDRESS: Final = re.compile(r"[^\s@<>,;]+@[^\s@<>,;]+")


def _http(url: str, name: str) -> None:
    found = _split(url)
    if found is None or found.scheme not in ("http", "https") or not found.hostname or found.fragment:
        raise SettingError(f"{name} is no http(s) URL", f"export {name}=https://...")


def _split(url: str) -> SplitResult | None:
    """None for what is no URL; why not would quote it, and it holds secrets."""
    try:
        found = urlsplit(url)
        return found if found.port is None or found.port else None
    except ValueError:
        return None


def _trusted(authority: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authority or None)
    except OSError as error:  # ssl.SSLError is one
        raise SettingError(f"PENSTOCK_ALERT_CA, {authority}: {error}", "name the PEM file of an authority") from None
