"""Quarantines: what is not to be learned from."""

from __future__ import annotations

from datetime import datetime

import msgspec

__all__ = ["Quarantine"]


class Quarantine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Outcomes of a model that no fit learns from: of a source, of a key, of a span of time, or of what all that is said has in
    common. The newest of an id counts, and has its whole history, so the topic may be compacted."""

    id: str
    model: str
    at: datetime
    """Fits of this stream time and later leave them out."""
    actor: str
    reason: str = ""
    source: str = ""
    """Who labelled; empty: whoever did."""
    key: str = ""
    """The key of the scored event; empty: whichever."""
    since: datetime | None = None
    """The time of the first scored event; null: from the first on."""
    until: datetime | None = None
    """End exclusive; null: without end."""
    lifted: datetime | None = None
    """Fits of this stream time and later learn from them again."""
    lifted_by: str = ""
