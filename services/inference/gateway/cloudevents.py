"""CloudEvents 1.0 over HTTP, in the modes of its HTTP binding (1.0.2), and bare JSON. Pure: bytes in, events out.

    binary       the body is the event, attributes are headers `ce-<name>`, percent-encoded
    structured   application/cloudevents+json: one object with attributes and `data`
    batch        application/cloudevents-batch+json: a list of these
    bare         anything else that has no `ce-specversion`: the body is the event, or a list of events, whatever its content type

Data is JSON, as on the topics; `data_base64` is taken where it decodes to that.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import msgspec

from penstock.errors import Refused

from .requests import listed

__all__ = ["Unsupported", "Wrapped", "unwrapped"]

REQUIRED: Final = ("specversion", "id", "source", "type")
LONGEST: Final = 8 * 1024
"""Bytes of all attributes of an event."""

_NAME = re.compile(r"[a-z0-9]{1,64}")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_value = msgspec.json.Decoder(str | bool | int | None).decode


class Unsupported(Refused):
    """Of another media type than can be taken."""

    def __init__(self, what: str) -> None:
        super().__init__("decode", what)


class Wrapped(NamedTuple):
    """The bytes of an event, and the attributes that it came with (none: it came bare)."""

    data: bytes
    attributes: dict[str, str]


def unwrapped(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> list[Wrapped | Refused]:
    """The events of a request; of each that is none, why. Headers are as ASGI has them, names in lower case. Raises Refused for
    what is no batch, Unsupported for another media type.

    >>> unwrapped([(b"ce-specversion", b"1.0"), (b"ce-id", b"7"), (b"ce-source", b"/tills%201"), (b"ce-type", b"paid")], b"{}")
    [Wrapped(data=b'{}', attributes={'specversion': '1.0', 'id': '7', 'source': '/tills 1', 'type': 'paid'})]
    >>> unwrapped([(b"content-type", b"application/cloudevents+json")], b'{"specversion": "1.0", "id": "7", "data": {}}')
    [Refused('a CloudEvent without source')]
    """
    kept = [(name, value) for name, value in headers if name == b"content-type" or name.startswith(b"ce-")]
    kind, charset = _media(next((value.decode("latin-1") for name, value in kept if name == b"content-type"), ""))
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise Unsupported(f"charset {charset[:40]} is not utf-8")
    if kind == "application/cloudevents-batch+json":
        return [_each(_structured, raw) for raw in listed(body)]
    if kind == "application/cloudevents+json":
        return [_each(_structured, body)]
    if kind.startswith("application/cloudevents"):
        raise Unsupported(f"{kind[:80]} is not taken: application/cloudevents+json and application/cloudevents-batch+json are")
    if any(name == b"ce-specversion" for name, _ in kept):
        _json(kind)
        return [_each(lambda data: Wrapped(data, _binary(kept)), body)]
    if body.lstrip(b" \t\r\n")[:1] == b"[":
        return [Wrapped(raw, {}) for raw in listed(body)]
    return [Wrapped(body, {})]


def _each(read: Any, data: bytes) -> Wrapped | Refused:
    try:
        found: Wrapped = read(data)
        return Wrapped(found.data, _checked(found.attributes))
    except Refused as refused:
        return refused


def _media(said: str) -> tuple[str, str]:
    """Media type and charset of a content type."""
    kind, *parameters = (part.strip() for part in said.lower().split(";"))
    charset = next((value.strip('"') for name, _, value in (p.partition("=") for p in parameters) if name == "charset"), "")
    return kind, charset


def _json(kind: str) -> None:
    if kind not in ("", "application/json", "text/json") and not kind.endswith("+json"):
        raise Unsupported(f"data of {kind[:80]} is not taken: events are JSON")


def _binary(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        if name == b"content-type":
            continue
        attribute = name[3:].decode("latin-1")
        if attribute in found:
            raise Refused("schema", f"ce-{attribute[:80]} is there twice")
        text = value.decode("latin-1").strip()
        if len(text) > 1 and text[0] == text[-1] == '"':
            text = re.sub(r"\\(.)", r"\1", text[1:-1])
        try:
            found[attribute] = unquote(text, errors="strict")
        except UnicodeDecodeError:
            raise Refused("decode", f"ce-{attribute[:80]} is not percent-encoded UTF-8") from None
    return found


def _structured(body: bytes) -> Wrapped:
    try:
        found = _object(body)
        data, packed = found.pop("data", None), found.pop("data_base64", None)
        attributes = {name: _value(value) for name, value in found.items()}
        if packed is not None:
            packed = base64.b64decode(msgspec.json.decode(packed, type=str), validate=True)  # type: ignore[assignment]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, binascii.Error) as error:
        raise Refused("decode", f"not a CloudEvent in JSON: {error}") from None
    if (data is None) == (packed is None):
        raise Refused(
            "schema", "a CloudEvent has either data or data_base64" if data is not None else "a CloudEvent without data"
        )
    _json(_media(str(attributes.get("datacontenttype") or ""))[0])
    texts = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in attributes.items()
        if value is not None
    }
    return Wrapped(bytes(packed if data is None else data), texts)  # type: ignore[arg-type]


def _checked(attributes: dict[str, str]) -> dict[str, str]:
    for name in REQUIRED:
        if not attributes.get(name):
            raise Refused("schema", f"a CloudEvent without {name}")
    if attributes["specversion"] != "1.0":
        raise Refused("schema", f"specversion {attributes['specversion'][:20]!r} is not 1.0")
    for name, value in attributes.items():
        if not _NAME.fullmatch(name):
            raise Refused("schema", f"{name[:80]!r} is no name of an attribute: a-z and 0-9")
        if _CONTROL.search(value):
            raise Refused("schema", f"attribute {name} holds a control character")
    if sum(len(name) + len(value.encode("utf-8", "replace")) for name, value in attributes.items()) > LONGEST:
        raise Refused("too_large", f"the attributes of an event have at most {LONGEST} bytes")
    return attributes
