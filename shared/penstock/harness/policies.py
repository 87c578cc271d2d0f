"""Policy files: ordinary Python whose top-level names are policies (`ps.Policy`), and the changes that are known.

    import penstock as ps

    sooner = ps.Policy(monitors=[ps.drift(every="6h")])
    weekly = ps.Policy(retrain=ps.every("7d", on="60d"))

    changes = {"the market opens": "1997-05-06T00:00Z"}

A file may import what lies beside it. Features come from the project's module, if a monitor is to watch some only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from ..errors import DefinitionError
from ..event import moment_of
from ..mistake import stopped, together, told
from ..policy import Policy
from ..project import run

__all__ = ["DECLARED", "Tried", "change_of", "policies"]

DECLARED: Final = "declared"
"""The name under which a model's own policy is tried, first of all."""

_FORM: Final = "give it a policy:  weekly = ps.Policy(retrain=ps.every('7d'))"


class Tried:
    """`policies` by name, the declared one first; `changes` by name, in order of time."""

    def __init__(self) -> None:
        self.policies: dict[str, Policy] = {DECLARED: Policy()}
        self.changes: dict[str, datetime] = {}


def policies(files: Iterable[Path], changes: Iterable[str] = ()) -> Tried:
    """What files name, and `changes` written as TIME or NAME=TIME. DefinitionError lists every mistake."""
    found, labelled = Tried(), dict[str, datetime]()
    for file in files:
        for name, what in _read(file).items():
            if isinstance(what, Policy) and not name.startswith("_"):
                if name in found.policies:
                    raise DefinitionError(f"{file}: there is another policy {name}", "rename one")
                found.policies[name] = what
            elif name == "changes":
                if not isinstance(what, Mapping):
                    raise DefinitionError(f"{file}: changes is {what!r}", 'write changes = {"it opens": "2026-02-01T00:00Z"}')
                labelled |= {str(label): _moment(f"{file}: {label}", at) for label, at in what.items()}
    labelled |= dict(map(change_of, changes))
    found.changes = dict(sorted(labelled.items(), key=lambda item: item[1]))
    return found


def change_of(said: str) -> tuple[str, datetime]:
    """The name and time of a change as it is written on a command line.

    >>> change_of("opening=1997-05-06T00:00Z")
    ('opening', datetime.datetime(1997, 5, 6, 0, 0, tzinfo=datetime.timezone.utc))
    >>> change_of("1997-05-06T00:00Z")[0]
    '1997-05-06T00:00Z'
    """
    name, _, at = said.rpartition("=")
    return name or at, _moment("--change", at)


def _moment(where: str, said: object) -> datetime:
    try:
        return moment_of(said)  # type: ignore[arg-type]  # whatever it is
    except ValueError as error:
        what, _, fix = str(error).partition(": ")
        raise DefinitionError(f"{where}: {what}", fix) from None


def _read(file: Path) -> dict[str, object]:
    """The top-level names of a file, in their order."""
    if not file.is_file():
        raise DefinitionError(f"no such file: {file}", f"write one, and {_FORM}")
    beside = str(file.parent.resolve())
    sys.path.insert(0, beside)
    with together() as mistakes:
        try:
            found = dict(vars(run(file)))
        except Exception as error:
            raise told([*mistakes, stopped(error)]) from error
        finally:
            sys.path.remove(beside)
    if not any(isinstance(what, Policy) for what in found.values()):
        raise DefinitionError(f"{file} names no policy", _FORM)
    return found
