"""Feedback: what people say of answers, on its way to the log. The command line, the gateway and the page take it down so."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

import msgspec

from ..errors import Refused
from ..log import Send
from ..records import Flag, Review
from ..topics import Topics
from .word import asked, carried, meant

__all__ = ["LONGEST", "Kind", "Said", "feedback", "said_of"]

LONGEST: Final = 16 << 10
"""Bytes of what is said at once."""

Kind = Literal["flags", "reviews"]


class Said(msgspec.Struct, frozen=True):
    """What a person says, as JSON over HTTP."""

    prediction: str
    says: bool | float | str | None = None
    """A flag: what would be right (may be left out); a review: what is true. Yes or no, a number, or the name of a class."""
    why: str = ""
    by: str = ""
    """Who says so; not asked for where a key says it."""


_said = msgspec.json.Decoder(Said).decode
_encode = msgspec.json.Encoder().encode


def said_of(body: bytes, key: str = "") -> Said:
    """What was said over HTTP. `key`: the name that whoever guards the doors knows; nobody says anything in another's name.
    Raises Refused."""
    try:
        said = _said(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("schema", f'not {{"prediction": ID, "says": true, "why": ..., "by": NAME}}: {error}') from None
    if key and said.by not in ("", key):
        raise Refused("schema", f"this key speaks for {key}, not for {said.by[:80]}: leave out `by`")
    return msgspec.structs.replace(said, by=key or said.by)


def feedback(topics: Topics, kind: Kind, model: str, said: Said, at: datetime) -> Send:
    """What somebody said at `at`, as the record that is to be sent. Raises Refused where it is none."""
    reviewed = [each.name for each in topics.reviewing]
    if model not in reviewed:
        there = f"; there is: {', '.join(reviewed)}" if reviewed else ""
        raise Refused("unknown", f"no answers of a model {model[:80]!r} are reviewed (ps.model(review=ps.review())){there}")
    if not said.by:
        raise Refused("schema", "who says so? give a name as `by`")
    if kind == "reviews" and said.says is None:
        raise Refused("schema", f"a review says what is true: give `says`, {asked(topics.project.model(model).label)}")
    word = {} if said.says is None else carried(meant(topics.project.model(model).label, said.says))
    record = Flag if kind == "flags" else Review
    made = record(prediction=said.prediction, model=model, by=said.by, at=at, why=said.why, **word)
    value = _encode(made)
    try:
        msgspec.json.decode(value, type=record)  # its bounds
    except msgspec.ValidationError as error:
        raise Refused("schema", str(error)) from None
    topic = topics.flags if kind == "flags" else topics.reviews
    return Send(topic, said.prediction.encode(), value, (("content-type", b"application/json"),))
