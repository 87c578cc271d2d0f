"""By HTTP: a webhook that bears a signature (Standard Webhooks 1.0), and one that Slack and those compatible with it take.

Redirects are not followed: what was meant for one address must not end at another. Once there is a status, it is the answer: what
follows is read for its words alone, and whatever is wrong with that sends nothing twice.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from ..errors import SettingError
from ..evidence import line_of
from .message import Message
from .routes import SECONDS, Delayed, Undeliverable

__all__ = ["Slack", "Webhook", "key_of", "signature"]

READ: Final = 2_000
"""Bytes of an answer that are read."""
SHOWN: Final = 200
"""Characters of it that are told."""
LATER: Final = (408, 425, 429)
"""Statuses below 500 that ask to come again."""
PREFIX: Final = "whsec_"
SECTION: Final = 3_000
TITLE: Final = 150
"""Characters that Slack takes in a section, and in a header."""
BLOCKS: Final = 10
"""Sections, of which it takes fifty, that anybody would read."""


def key_of(text: str) -> bytes:
    """The key that `whsec_...` spells, of 16 to 64 bytes; empty for no text, which is: no signature. SettingError for another.

    >>> key_of("whsec_plJ3nmyCDGBKInavdOK15jsl").hex()
    'a652779e6c820c604a2276af74e2b5e63b25'
    """
    if not text:
        return b""
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(PREFIX) or not 16 <= len(key) <= 64:
        raise SettingError(
            "PENSTOCK_ALERT_WEBHOOK_KEY is no key of Standard Webhooks",
            'export PENSTOCK_ALERT_WEBHOOK_KEY="whsec_$(openssl rand -base64 32)"   and give the receiver the same',
        )
    return key


def signature(key: bytes, id_: str, at: int, body: bytes) -> str:
    """The header `webhook-signature` of a body that is sent at `at`, seconds since 1970.

    >>> key = key_of("whsec_plJ3nmyCDGBKInavdOK15jsl")
    >>> signature(key, "msg_loFOjxBNrRLzqYUf", 1731705121, b'{"event_type":"ping","data":{"success":true}}')
    'v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0='
    """
    digest = hmac.new(key, b"%b.%d.%b" % (id_.encode(), at, body), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


class _Hook:
    name = ""

    def __init__(self, url: str, trusted: ssl.SSLContext) -> None:
        self._url, self._trusted = url, trusted
        found = urlsplit(url)
        self._secrets = [part for part in (f"{found.path}?{found.query}", found.path, found.query) if len(part) > 1]
        self.place = f"{found.scheme}://{found.hostname}" + (f":{found.port}" if found.port else "")

    async def _post(self, body: bytes, headers: Mapping[str, str]) -> str:
        import httpx

        logging.getLogger("httpx").setLevel(logging.WARNING)  # it would tell the whole URL, which is a secret
        said = {"content-type": "application/json", "user-agent": "penstock", "accept-encoding": "identity", **headers}
        answer, found = None, bytearray()
        try:
            async with asyncio.timeout(3 * SECONDS), httpx.AsyncClient(verify=self._trusted, timeout=SECONDS) as client:
                request = client.build_request("POST", self._url, content=body, headers=said)
                answer = await client.send(request, stream=True, follow_redirects=False)
                async for chunk in answer.aiter_raw():  # as it came: few bytes could unfold to many
                    found += chunk
                    if len(found) >= READ:
                        break
                await answer.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:  # TimeoutError is an OSError
            if answer is None:
                raise self._unheard(error) from None
        words = self._words(found)
        told = f"{self.place} answered {answer.status_code}" + (f": {words}" if words else "")
        if answer.is_success:
            return told
        if answer.status_code in LATER or answer.status_code >= 500:
            raise Delayed(told, _asked(answer.headers.get("retry-after", ""), time.time))
        if answer.has_redirect_location:
            told += f" -> {_host(answer.headers['location'])}, and redirects are not followed"
        raise Undeliverable(told)

    def _unheard(self, error: Exception) -> Delayed | Undeliverable:
        """Why there is no answer."""
        import httpx

        if isinstance(error, TimeoutError):
            return Delayed(f"{self.place} did not answer within {3 * SECONDS:.0f} s")
        if isinstance(error, httpx.InvalidURL | UnicodeError):
            return Undeliverable(f"{self.place}: {error}")
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
            return Undeliverable(f"the certificate of {self.place} is not to be trusted: {error}")
        return Delayed(f"{self.place} does not answer: {str(error) or type(error).__name__}")

    def _words(self, said: bytearray) -> str:
        """The beginning of an answer, on a line; many a server repeats the path that it was asked, which is a secret."""
        words = line_of(said.decode("utf-8", "replace"), READ)
        for secret in self._secrets:
            words = words.replace(secret, "...")
        return words[:SHOWN]


class Webhook(_Hook):
    """One POST a message, as Standard Webhooks says: `webhook-id` is the same at every attempt, and with a key it is signed."""

    name = "webhook"

    def __init__(self, url: str, key: bytes, trusted: ssl.SSLContext, clock: Callable[[], float] = time.time) -> None:
        super().__init__(url, trusted)
        self._key, self._clock = key, clock

    async def send(self, message: Message) -> str:
        said = {"type": f"alarm.{message.state}", "timestamp": message.at, "data": message}
        body, at = msgspec.json.encode(said), int(self._clock())
        headers = {"webhook-id": message.id, "webhook-timestamp": str(at)}
        if self._key:
            headers["webhook-signature"] = signature(self._key, message.id, at, body)
        return await self._post(body, headers)


class Slack(_Hook):
    """An incoming webhook: a text, and blocks for those who show them."""

    name = "slack"

    async def send(self, message: Message) -> str:
        return await self._post(msgspec.json.encode(slack_of(message)), {})


def slack_of(message: Message) -> dict[str, Any]:
    """The message as Slack takes it."""
    title = {"type": "header", "text": {"type": "plain_text", "text": message.title[:TITLE]}}
    return {"text": _escaped(message.title), "blocks": [title, *_sections(message.lines)]}


def _sections(lines: list[str]) -> Iterator[dict[str, Any]]:
    """Lines as verbatim text, cut between lines where a section is full."""
    parts = [""]
    for line in map(_escaped, lines):
        line = line.replace("```", "'''")  # which would end the section, and have the rest read as markup
        if len(parts[-1]) + len(line) + 10 > SECTION:
            parts.append("")
        parts[-1] += f"{line}\n"
    for part in parts[:BLOCKS]:
        if part:
            yield {"type": "section", "text": {"type": "mrkdwn", "text": f"```\n{part}```", "verbatim": True}}


def _escaped(text: str) -> str:
    """Text that says nothing else to Slack: no link, no mention.

    >>> _escaped("delay > 15 <!channel>")
    'delay &gt; 15 &lt;!channel&gt;'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _asked(said: str, clock: Callable[[], float]) -> float:
    """The seconds that a Retry-After asks for: a number, or a date.

    >>> _asked("120", lambda: 0.0), _asked("Thu, 01 Jan 1970 00:01:00 GMT", lambda: 20.0), _asked("soon", lambda: 0.0)
    (120.0, 40.0, 0.0)
    """
    if said.strip().isdecimal():
        return float(said)
    try:
        when = parsedate_to_datetime(said)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return max((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - clock(), 0.0)


def _host(location: str) -> str:
    try:
        return urlsplit(location).hostname or "another path"
    except ValueError:
        return "nowhere"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
