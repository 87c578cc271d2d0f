"""Query: a read of features as it travels over HTTP, and what comes back."""

from __future__ import annotations

from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from ..errors import Refused
from .freshness import STATUSES

if TYPE_CHECKING:
    from .readings import Readings

__all__ = [
    "ARROW",
    "JSON",
    "MAX_BODY",
    "MAX_KEYS",
    "Answer",
    "Query",
    "Standing",
    "answered",
    "query_of",
    "stream_of",
    "streamed",
]

MAX_KEYS: Final = 10_000
"""Keys in one query. That many states of 20 windows are 200 MB and half a second of a core."""

MAX_BODY: Final = 16 << 20
"""Bytes of one query: far above 10,000 keys as people have them, and some of 64 KiB fit."""

JSON: Final = "application/json"
ARROW: Final = "application/vnd.apache.arrow.stream"


class Query(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What to read of whom: `views`, `features` and the features of a `model` together, for each of `keys`."""

    keys: Annotated[
        list[Any] | dict[str, list[Any]],
        msgspec.Meta(
            description="Where all is by one key, a list of keys (a compound key is a list of its parts); else a list of objects "
            "by column name, or an object of lists by column name. Null: the row names nobody."
        ),
    ]
    views: Annotated[list[str], msgspec.Meta(description="Names of views.")] = []
    features: Annotated[list[str], msgspec.Meta(description="Names of features, `View.feature`.")] = []
    model: Annotated[str, msgspec.Meta(description="The name of a model: the features among its inputs.")] = ""
    at: Annotated[
        str | list[str] | None,
        msgspec.Meta(description="When windows end: a moment in ISO 8601 with an offset, or one for each key. Default: now."),
    ] = None

    @property
    def what(self) -> tuple[str, ...]:
        return (*self.views, *self.features, *([self.model] if self.model else []))


class Standing(msgspec.Struct):
    """How one view stands, by row."""

    status: Annotated[list[str], msgspec.Meta(description=f"{', '.join(STATUSES)}.")]
    age: Annotated[
        list[float | None], msgspec.Meta(description="Seconds from the view's newest event to `as_of`; null: there was none.")
    ]
    as_of: Annotated[list[datetime], msgspec.Meta(description="When windows end: the moment asked about, or the newest event.")]


class Answer(msgspec.Struct):
    """A row for each key, in order, as columns."""

    features: Annotated[dict[str, list[float | None]], msgspec.Meta(description="Values by `View.feature`; null: missing.")]
    views: Annotated[dict[str, Standing], msgspec.Meta(description="How each view stands.")]


def query_of(body: bytes) -> Query:
    """A query from JSON; Refused in words when it is none."""
    try:
        return msgspec.json.decode(body, type=Query)
    except msgspec.ValidationError as error:
        raise Refused("schema", f"not a query: {error}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Refused("decode", f"not a query in JSON: {error}") from None


def answered(body: bytes) -> Readings:
    """Readings from an answer in JSON: the inverse of `Readings.to_dict`, to the last bit."""
    from .readings import Readings

    return Readings.from_answer(msgspec.json.decode(body, type=Answer))


def stream_of(readings: Readings) -> bytes:
    """Readings as an Arrow IPC stream of one batch."""
    pa, batch = import_module("pyarrow"), readings.to_arrow()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(memoryview(sink.getvalue()))


def streamed(body: bytes) -> Readings:
    """The inverse of `stream_of`."""
    from .readings import Readings

    with import_module("pyarrow").ipc.open_stream(body) as reader:
        return Readings.from_arrow(reader.read_next_batch())
