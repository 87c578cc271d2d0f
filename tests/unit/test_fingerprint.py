"""The fingerprint of a function's code: the same wherever it lies, another where what it does may be another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.fingerprint import fingerprint
from penstock.project import run

TEXT = """
import numpy as np
import beside

BY = 2.0
NAMES = ("a", "b")

def scaled(x):
    return [y * BY for y in x]

class Table:
    def of(self, x):
        return beside.twice(x), NAMES

def f(x):
    # a remark
    return scaled(x), Table().of(x), np.asarray(x)

def aside(x):
    return x
"""


def of(folder: Path, text: str = TEXT, beside: str = "def twice(x):\n    return 2 * x\n", **others: str) -> str:
    folder.mkdir(exist_ok=True)
    for name, held in {"beside": beside, "steps": text, **others}.items():
        (folder / f"{name}.py").write_text(held)
    sys.path.insert(0, str(folder))
    try:
        made: Callable[..., Any] = run(folder / "steps.py").f
        return fingerprint(made)
    finally:
        sys.path.remove(str(folder))
        for name in ("beside", *others):
            sys.modules.pop(name, None)


def test_lies_in_the_code_and_not_in_where_it_lies_nor_in_remarks(tmp_path: Path) -> None:
    first = of(tmp_path / "a")
    assert first == of(tmp_path / "b")
    assert first == of(tmp_path / "c", TEXT.replace("# a remark", "# another, longer remark\n"))
    assert first == of(tmp_path / "d", TEXT.replace("def aside(x):\n    return x", "def aside(x):\n    return -x"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return scaled(x),", "return scaled(x), 1,"),
        ("y * BY", "y + BY"),
        ("BY = 2.0", "BY = 3.0"),
        ('"a", "b"', '"a", "c"'),
        ("beside.twice(x), NAMES", "NAMES"),
    ],
)
def test_is_another_where_it_or_what_it_uses_is(tmp_path: Path, old: str, new: str) -> None:
    assert old in TEXT
    assert of(tmp_path / "a") != of(tmp_path / "b", TEXT.replace(old, new))


def test_counts_modules_beside_it(tmp_path: Path) -> None:
    assert of(tmp_path / "a") != of(tmp_path / "b", beside="def twice(x):\n    return 3 * x\n")


HELD = """
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
import numpy as np
import beside
from beside import scaled

RATE = 1.5
ORDER = np.array(["NL", "DE"], object)
SPAN = timedelta(hours=1)

@cache
def kept(x):
    return x + 1

def lowest(x):
    return min(x)

def raised(x, by):
    return x ** by

STEPS = {"low": lowest}
CUBED = partial(raised, by=3)

@dataclass(frozen=True)
class Range:
    top: float = 10.0

class Base:
    def cut(self, x):
        return x[:5]

class Cut(Base):
    LEAST = RATE

RANGE = Range(top=20.0)

def f(x, least=RATE * 2):
    return kept(x), STEPS, CUBED(x), RANGE.top, Cut().cut(x), RATE, ORDER, SPAN, scaled(x), beside.twice(x), least
"""
BESIDE = """
from further import FACTOR
RATE = 2.5
def scaled(x):
    return x * RATE
def twice(x):
    return FACTOR * x
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return x + 1", "return x + 2"),
        ("return min(x)", "return max(x)"),
        ("return x ** by", "return x * by"),
        ("by=3", "by=4"),
        ("top=20.0", "top=30.0"),
        ("top: float = 10.0", "top: float = 11.0"),
        ("return x[:5]", "return x[:6]"),
        ("LEAST = RATE", "LEAST = RATE * 2"),
        ("hours=1", "hours=2"),
        ('"DE"', '"BE"'),
        ("least=RATE * 2", "least=RATE * 3"),
    ],
)
def test_counts_what_is_held_by_something_else(tmp_path: Path, old: str, new: str) -> None:
    assert old in HELD
    further = {"further": "FACTOR = 2\n"}
    assert of(tmp_path / "a", HELD, BESIDE, **further) != of(tmp_path / "b", HELD.replace(old, new), BESIDE, **further)


def test_counts_both_of_two_that_are_called_alike(tmp_path: Path) -> None:
    further = {"further": "FACTOR = 2\n"}
    first = of(tmp_path / "a", HELD, BESIDE, **further)
    assert first != of(tmp_path / "b", HELD, BESIDE.replace("RATE = 2.5", "RATE = 3.5"), **further)
    assert first != of(tmp_path / "c", HELD.replace("RATE = 1.5", "RATE = 3.5").replace("RATE * 2", "3.0"), BESIDE, **further)


def test_counts_modules_that_modules_beside_it_use(tmp_path: Path) -> None:
    assert of(tmp_path / "a", HELD, BESIDE, further="FACTOR = 2\n") != of(tmp_path / "b", HELD, BESIDE, further="FACTOR = 3\n")


def test_is_the_same_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text(BESIDE)
    (tmp_path / "further.py").write_text("FACTOR = 2\n")
    (tmp_path / "steps.py").write_text(HELD)
    asked = "from penstock.fingerprint import fingerprint; import steps; print(fingerprint(steps.f))"
    said = {
        subprocess.run([sys.executable, "-c", asked], cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": seed},
                       check=True, capture_output=True, text=True).stdout
        for seed in "12"
    }  # fmt: skip
    assert len(said) == 1
