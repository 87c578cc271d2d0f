"""Dead letters: a record that cannot be taken leaves by the side door, its bytes untouched, with the cause in headers.

They go to `<topic>.dlq` before the position moves past the record. Reasons are `errors.Refused.reason`.
"""

from __future__ import annotations

from .errors import Refused
from .log import Headers, Partition, Send

__all__ = ["cause_of", "dead_letter"]


def dead_letter(
    topic: str,
    source: Partition,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    refusal: Refused,
    service: str,
) -> Send:
    """The record for dead-letter topic `topic`; the id of a dead letter is its source position."""
    cause: Headers = (
        ("dlq.reason", refusal.reason.encode()),
        ("dlq.error", str(refusal).encode()[:2000]),
        ("dlq.topic", source.topic.encode()),
        ("dlq.partition", b"%d" % source.number),
        ("dlq.offset", b"%d" % offset),
        ("dlq.service", service.encode()),
    )
    return Send(topic, key, value, (*headers, *cause), source.number)


def cause_of(headers: Headers) -> dict[str, str]:
    """The dlq.* headers of a dead letter, as text."""
    return {name: value.decode("utf-8", "replace") for name, value in headers if name.startswith("dlq.")}
