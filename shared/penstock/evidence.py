"""The evidence of an alarm in words, the same on a screen, in a message and in a report.

Whatever it holds, it is a few short lines: evidence quotes what people sent, which may be a book.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from .fairness import told

if TYPE_CHECKING:
    from .records import Shift

__all__ = ["excess", "facts", "line_of", "summary"]

FACTS: Final = 6
"""Lines of evidence of an alarm."""
LINE: Final = 300
"""Characters of a line."""


def facts(evidence: Mapping[str, Any]) -> list[str]:
    """What an alarm goes by, what weighs most first.

    >>> facts({"since": "2013", "skill": 0.01234, "inputs": [{"input": "delay", "ks": 0.31, "critical": 0.02, "floor": 0.05}]})
    ['delay moved by 0.31 (limit 0.05), beyond it', 'skill 0.0123']
    >>> facts({"skill": 0.0123, "floor": 0.02, "n": 6057, "log_loss": 0.3788, "prior_loss": 0.386})
    ['skill 0.0123, below the floor of 0.02, on 6,057 outcomes', 'log loss 0.379, that of the prior 0.386']
    """
    rest = {name: value for name, value in evidence.items() if name != "since" and value not in (None, [], {})}
    if str(rest.get("influence", "")).startswith("not weighed"):  # what was not done is no evidence
        del rest["influence"]
    lines: list[str] = []
    for names, words in _KNOWN.items():
        if names <= rest.keys():
            with suppress(TypeError, ValueError):  # values of other kinds are told by their names
                lines += words(rest)
                rest = {name: value for name, value in rest.items() if name not in names}
    lists = {name: value for name, value in rest.items() if isinstance(value, list)}
    rest = {name: value for name, value in rest.items() if name not in lists}
    lines += [_item(item) if isinstance(item, dict) else f"{name} {_plain(item)}" for name, v in lists.items() for item in v]
    lines = lines[: FACTS - bool(rest)] + ([_pairs(rest)] if rest else [])
    return [line_of(line) for line in lines]


def excess(shift: Shift) -> float:
    """The distance of an input as a multiple of the greater of its limits."""
    return shift.ks / max(shift.critical, shift.floor or 0.0, 1e-9)


def summary(evidence: Mapping[str, Any]) -> str:
    """The first facts, on one line."""
    return line_of("; ".join(facts(evidence)[:3]))


def _drifted(said: Mapping[str, Any]) -> list[str]:
    """How much of what is watched moved, against which version; an alarm that lasts may have nothing that still does."""
    shifted, tested, reference = said["shifted"], said["tested"], said["reference"]
    together = f", {said['periods']} windows taken together" if said.get("periods", 1) > 1 else ""
    moved = "nothing watched moves now" if not shifted else f"{shifted} of {tested} watched moved"
    return [f"{moved} against the reference of {reference}{together}"]


def _skill(said: Mapping[str, Any]) -> list[str]:
    word = "below" if said["skill"] < said["floor"] else "not below"
    loss = next(name for name in _LOSSES if name in said)
    return [
        f"skill {_plain(said['skill'])}, {word} the floor of {_plain(said['floor'])}, on {said['n']:,} outcomes",
        f"{loss.replace('_', ' ')} {_plain(said[loss])}, that of the prior {_plain(said['prior_loss'])}",
    ]


_LOSSES: Final = ("log_loss", "squared_error", "pinball_loss")


def _labels(said: Mapping[str, Any]) -> list[str]:
    return [f"{said['labelled']:.1%} of {said['answers']:,} answers have their label in time, usually {said['usually']:.1%}"]


def _lateness(said: Mapping[str, Any]) -> list[str]:
    limit = max(said["critical"], said["floor"])
    return [*_labels(said), f"so labels are {said['distance']:.1%} behind the usual at worst (limit {limit:.1%})"]


def _delay(said: Mapping[str, Any]) -> list[str]:
    return [f"half of the labels came within {_span(said['median_delay_seconds'])}, usually within "
            f"{_span(said['usual_median_delay_seconds'])}"]  # fmt: skip


def _cohort(said: Mapping[str, Any]) -> list[str]:
    when = datetime.fromisoformat(said["cohort"])
    return [f"this is of the answers of {when:%Y-%m-%d %H:%M}; in time is within {_span(said['within_seconds'])}"]


def _novelty(said: Mapping[str, Any]) -> list[str]:
    rows = f"{said['expected']:.2%} of the rows that {said['version']} was fitted on"
    return [f"{said['novel']:.1%} of {said['answers']:,} answers were about something novel, as are {rows}"]


def _outside(said: Mapping[str, Any]) -> str:
    """An input, or the sum of all, that is novel too often."""
    often = f"{said['share']:.1%} of the answers, {said['expected']:.2%} expected (limit {said['floor']:.1%} more)"
    if "input" not in said:
        return f"novel as a whole in {often}"
    ways = [f"{said[name]:,} {words}" for name, words in _WAYS.items() if said[name]]
    return f"{said['input']} was outside all training rows in {often}: {', '.join(ways)}"


def _oddity(said: Mapping[str, Any]) -> str:
    """One of the oddest answers."""
    new = ", ".join(f"{name} {_number(value)}" for name, (value, _) in said["inputs"].items())
    return f"for example {said['id']}, as odd as one training row in {2 ** said['level']:,}: {new}"


_WAYS: Final = {"below": "below", "above": "above", "missing": "missing"}


def _number(value: float | None) -> str:
    """
    >>> _number(918000.4), _number(0.1134), _number(None)
    ('918,000', '0.113', 'missing')
    """
    return "missing" if value is None else f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.3g}"


def _span(seconds: float) -> str:
    """
    >>> _span(216_000.0), _span(0.5)
    ('2.5 d', '0.5 s')
    """
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.2g} s"


_KNOWN: Final[dict[frozenset[str], Any]] = {
    frozenset({"reference", "tested", "shifted", "periods"}): _drifted,
    **{frozenset({"skill", "floor", "n", loss, "prior_loss"}): _skill for loss in _LOSSES},
    frozenset({"labelled", "usually", "answers", "distance", "critical", "floor"}): _lateness,
    frozenset({"labelled", "usually", "answers"}): _labels,
    frozenset({"median_delay_seconds", "usual_median_delay_seconds"}): _delay,
    frozenset({"cohort", "within_seconds"}): _cohort,
    frozenset({"version", "answers", "novel", "expected"}): _novelty,
}
"""Evidence whose meaning is known by its names; any other is told by them."""


def _item(found: Mapping[str, Any]) -> str:
    """An input that moved, a gap between groups, or what is novel, in words; anything else by its names."""
    if gap := told(found):
        return gap
    with suppress(TypeError, ValueError, AttributeError, OverflowError):
        if found.keys() >= {"share", "expected", "floor", "p"} and ("input" in found) != ("score" in found):
            return _outside(found)
        if found.keys() == {"id", "level", "bits", "inputs"}:
            return _oddity(found)
    moved = found.get("ks")
    if "input" not in found or not isinstance(moved, int | float):
        return _pairs(found)
    limits = [limit for limit in (found.get("critical"), found.get("floor")) if isinstance(limit, int | float)]
    if not limits:
        return f"{found['input']} moved by {_plain(moved)}"
    # an alarm stands while an input is near its limit
    word = "beyond" if moved > max(limits) else "near" if found.get("shifted") else "within"
    if word == "beyond" and not found.get("shifted", True):  # no custom of so short a span is known
        return f"{found['input']} moved by {_plain(moved)} (limit {_plain(max(limits))}), beyond it, but not counted"
    return f"{found['input']} moved by {_plain(moved)} (limit {_plain(max(limits))}), {word} it"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{str(name).replace('_', ' ')} {_plain(value)}" for name, value in values.items())


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return f"({_pairs(value)})"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return ", ".join(map(_plain, value[:FACTS]))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def line_of(text: str, most: int = LINE) -> str:
    """On one line, not longer than one, and nothing in it that steers a terminal or that a mail server refuses."""
    text = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
    return text if len(text) <= most else f"{text[: most - 3]}..."
