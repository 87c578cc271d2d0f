"""The fingerprint of a function's code: the same wherever it lies, another where what it does may be another."""

from __future__ import annotations

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


def of(folder: Path, text: str = TEXT, beside: str = "def twice(x):\n    return 2 * x\n") -> str:
    folder.mkdir(exist_ok=True)
    (folder / "beside.py").write_text(beside)
    (folder / "steps.py").write_text(text)
    import sys

    sys.path.insert(0, str(folder))
    try:
        made: Callable[..., Any] = run(folder / "steps.py").f
        return fingerprint(made)
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("beside", None)


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
