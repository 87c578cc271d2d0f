"""Dead letters: a record that cannot be taken leaves by the side door, its bytes untouched, with the cause in headers.

They go to `<topic>.dlq` before the position moves past the record, and stay there. Reasons are `errors.Refused.reason`.

`penstock dlq replay` sends the original record again, with one header more: `dlq.replay`, the name of the dead letter
(`<topic>.dlq/<partition>/<offset>`). That header is the mark of what has been replayed: it is written with the record or not at
all, and a later replay looks for it in the topic that the record came from. A record that is refused again is a new dead letter.
"""

from __future__ import annotations

from ..errors import PenstockError, Refused
from ..log import Headers, Partition, Send
from ..topics import Topics

__all__ = ["REPLAY", "cause_of", "dead_letter", "name_of", "revived"]

REPLAY = "dlq.replay"


def dead_letter(
    source: Partition,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    refusal: Refused,
    service: str,
) -> Send:
    """The dead letter of a record; its id is where the record lies."""
    cause: Headers = (
        ("dlq.reason", refusal.reason.encode()),
        ("dlq.error", str(refusal).encode()[:2000]),
        ("dlq.topic", source.topic.encode()),
        ("dlq.partition", b"%d" % source.number),
        ("dlq.offset", b"%d" % offset),
        ("dlq.service", service.encode()),
    )
    return Send(Topics.dead_letters(source.topic), key, value, (*headers, *cause), source.number)


def cause_of(headers: Headers) -> dict[str, str]:
    """The dlq.* headers of a dead letter, as text."""
    return {name: value.decode("utf-8", "replace") for name, value in headers if name.startswith("dlq.")}


def name_of(place: Partition, offset: int) -> str:
    """The name of a dead letter: where it lies.

    >>> name_of(Partition("weather.dlq", 2), 17)
    'weather.dlq/2/17'
    """
    return f"{place.topic}/{place.number}/{offset}"


def revived(place: Partition, offset: int, key: bytes | None, value: bytes | None, headers: Headers) -> Send:
    """The original record of the dead letter that lies there: its key, value and headers, with the mark, without the cause and
    without the number under which a service sent it (readers would take it for a repeat). Its key chooses the partition
    anew."""
    from .lane import FROM, SEQUENCE, numbered

    cause, name = cause_of(headers), name_of(place, offset)
    if "dlq.topic" not in cause:
        raise PenstockError(f"{name} has no header dlq.topic: it was not written by Penstock", f"penstock dlq show {place.topic}")
    kept = [(n, v) for n, v in headers if not n.startswith("dlq.")]
    if numbered(headers) is not None:
        kept = [(n, v) for n, v in kept if n not in (FROM, SEQUENCE)]
    number = int(cause["dlq.partition"]) if key is None and "dlq.partition" in cause else None
    return Send(cause["dlq.topic"], key, value, (*kept, (REPLAY, name.encode())), number)
