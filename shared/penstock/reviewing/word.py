"""Words: what a person says is true, as the label has it: yes or no, a number, or one of the classes."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from ..errors import Refused
from ..label import GREATEST, Label, Truth
from ..mistake import nearest

__all__ = ["alike", "asked", "carried", "fits", "meant", "spelled", "typed"]

YES_NO = {"yes": True, "no": False}


def asked(label: Label) -> str:
    """What is to be said, for people: "yes|no", "NUMBER", or the classes."""
    return {"binary": "yes|no", "regression": "NUMBER"}.get(label.task, "|".join(label.classes))


def typed(label: Label, text: str) -> Truth:
    """What somebody typed. Raises Refused where it is no label of this kind."""
    if label.task == "binary":
        if text in YES_NO:
            return YES_NO[text]
        raise Refused("schema", f"{text!r} is neither yes nor no")
    if label.task == "multiclass":
        return meant(label, text)
    try:
        return meant(label, float(text))
    except ValueError:
        raise Refused("schema", f"{label.column!r} is a number, and {text!r} is none") from None


def meant(label: Label, said: Truth) -> Truth:
    """What somebody said, as JSON has it. Raises Refused where it is no label of this kind.

    >>> from penstock.examples.delays import delay
    >>> meant(delay.label, 12.5)
    12.5
    >>> meant(delay.label, True)
    Traceback (most recent call last):
    penstock.errors.Refused: Arrived.delay is a number, and true is none
    """
    spoken, column = str(said).lower() if isinstance(said, bool) else repr(said), label.column
    if label.task == "binary":
        if isinstance(said, bool):
            return said
        raise Refused("schema", f"{column!r} is yes or no: true or false, not {spoken}")
    if label.task == "multiclass":
        if isinstance(said, str) and said in label.classes:
            return said
        fix = nearest(said, label.classes) if isinstance(said, str) else f"one of {', '.join(label.classes)}"
        raise Refused("schema", f"{column!r} has no class {spoken}; {fix}")
    if isinstance(said, bool | str):
        raise Refused("schema", f"{column!r} is a number, and {spoken} is none")
    if not isfinite(said) or abs(said) > GREATEST:
        raise Refused("schema", f"{column!r} is a number of at most {GREATEST:g}, not {spoken}")
    if column.type is int and said != int(said):
        raise Refused("schema", f"{column!r} is a whole number, not {spoken}")
    return float(said)


def fits(label: Label, word: Truth) -> bool:
    """Whether a word that was kept is of the kind of the label as it is declared now."""
    return isinstance(word, {"binary": bool, "regression": float, "multiclass": str}[label.task])


def carried(word: Truth) -> Mapping[str, Any]:
    """The fields of a record that has a word: what is no yes or no is its `truth`."""
    return {"says": word} if isinstance(word, bool) else {"says": False, "truth": word}


def spelled(word: Truth) -> str:
    """For people.

    >>> spelled(True), spelled(12.50), spelled("bug")
    ('yes', '12.5', 'bug')
    """
    if isinstance(word, bool):
        return "yes" if word else "no"
    return word if isinstance(word, str) else f"{word:.6g}"


def alike(one: Truth, other: Truth, within: float = 0.0) -> bool:
    """Whether two words say the same; numbers do that are no further apart than `within`."""
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return abs(one - other) <= within
