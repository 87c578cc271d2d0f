"""Review: which answers people are asked about, and how their decisions become labels."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from .label import Label
from .mistake import mistake

__all__ = ["Reviewing", "drawn", "fit", "review"]


@dataclass(frozen=True)
class Reviewing:
    """What `review` declares. `source` is how the label events of reviewers name themselves."""

    near: float
    sample: float
    pairs: float
    most: int
    source: str
    within: float = 0.0


def review(
    near: float = 0.1,
    sample: float = 0.05,
    pairs: float = 0.2,
    most: int = 100,
    source: str = "reviewers",
    within: float = 0.0,
) -> Reviewing:
    """Have people look at answers: those that somebody flags as wrong, and of the uncertain ones the share `sample`.

    An answer is uncertain where its score is at most `near` from the threshold of decision (`above` of `ps.value`, else 0.5); of
    classes, where the two most probable are at most twice `near` apart (the margin; Scheffer et al. 2001), which of two classes
    is the same; of any kind, where half of its inputs or more are missing. A number says nothing of how sure it is: of numbers
    only these, and what is flagged, are looked at. What is drawn follows from its id alone, so a replay draws the same. At most
    `most` wait at a time on each partition; where there are more, those wait that teach most: contradicted, then flagged, then
    closest to the threshold. The share `pairs` of them is given to two reviewers on purpose, who are asked blindly, so that their
    agreement can be measured; where two contradict each other, a third decides: of classes, the first that two have named (where
    three name three, a fourth is asked). Numbers that are at most `within` apart say the same, and their mean is the label; where
    two contradict each other, the median of three.

    A decision is published as a label event, with `source` in its source column: name it among `ps.sources`, with the trust and
    the cap that reviewers deserve. Without declared sources it is a label like any other: the newest is right. Views over the
    label event take it as well. What reviewers see is no fair sample: where few labels come from elsewhere, the quality that is
    measured is that of the hard cases, and a cap bounds how much they weigh.
    """
    said = f"review(near={near}, sample={sample}, pairs={pairs}, most={most})"
    if not 0 <= near <= 0.5 or not 0 <= sample <= 1 or not 0 <= pairs <= 1:
        mistake(said, "near lies between 0 and 0.5, sample and pairs are shares")
    if not 1 <= most <= 1_000:
        mistake(said, "most is the length of a list for people, 1 to 1000")
    if not within >= 0:
        mistake(f"review(within={within})", "how far apart two numbers may be that say the same, such as within=15.0")
    if not source:
        mistake(said, "name the source, such as reviewers")
    return Reviewing(near, sample, pairs, most, source, float(within))


def fit(name: str, label: Label, reviewing: Reviewing) -> None:
    """Note what keeps the decisions on a model `name` from becoming label events."""
    event, said = label.event, f"model {name}: review"
    if label.task == "regression" and reviewing.pairs > 0 and not reviewing.within > 0:
        fix = "say how far apart two may be that say the same: review(within=15.0); or pairs=0"
        mistake(f"{said} of {label.column!r}: two people hardly ever say the same number", fix)
    if label.task != "regression" and reviewing.within:
        mistake(f"{said} of {label.column!r}: within={reviewing.within} is of numbers", "leave within= out")
    filled = {event.key, label.column, event.time, event.id, label.sources and label.sources.column}
    if unfilled := [repr(c) for c in event.columns.values() if c not in filled and not c.optional]:
        fix = "let them be missing (`| None`), or label by an event of its own"
        mistake(f"{said}: a decision becomes a {event!r}, and nobody fills {', '.join(unfilled)}", fix)
    if event.id is not None and event.id is not event.key and event.id.type is not str:
        mistake(f"{said}: {event.id!r} is a number, and the ids of decisions are derived", "declare it as str")
    if label.sources is not None and reviewing.source not in dict(label.sources.caps):
        fix = f'name it, such as {{"{reviewing.source}": 1, ...}}, or review(source=...) one that is'
        mistake(f"{said}: {reviewing.source!r} is no source of {label.column!r}", fix)


def drawn(purpose: str, model: str, id_: str) -> float:
    """Where an answer lies in a draw, from 0 to below 1: blake2b of "purpose:model:id", 8 bytes big-endian.

    >>> [round(drawn("review", "late", name), 2) for name in ("a", "b")]
    [0.45, 0.59]
    """
    return int.from_bytes(blake2b(f"{purpose}:{model}:{id_}".encode(), digest_size=8).digest()) / 2.0**64
