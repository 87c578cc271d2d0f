"""A misspelt column is a type error, for mypy and for pyright; the example itself type-checks strictly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOOD = """
import penstock as ps

@ps.event("payments")
class Payment:
    payment_id: ps.Id[str]
    card: ps.Key[str]
    country: str
    amount: float
    at: ps.EventTime

@ps.features(by=Payment.card)
class Card:
    spend = ps.sum(Payment.amount, over="24h")

    @ps.derived
    def surge(self, now: Payment) -> float:
        return now.amount / (self.spend + 1.0)

ps.expect(Payment.amount, between=(0, None), otherwise="dead_letter")
ps.expect(Payment.country, among=["DE", "FR"], matches="[A-Z]+", unique="1d")
ps.expect(Payment.at, rising=True, otherwise="alarm", above=0.1)

@ps.expect
def small(payment: Payment) -> bool:
    return payment.amount < 100

@ps.expect(otherwise="alarm", above=0.5)
def foreign(payment: Payment) -> bool:
    return payment.country != "DE"
"""
EXPECTED = {
    "a misspelt column that is expected": "ps.expect(Payment.amont, present=True)",
    "a range of text": "ps.expect(Payment.country, between=(0, 1))",
    "a pattern of numbers": 'ps.expect(Payment.amount, matches="1")',
    "a set of another type": "ps.expect(Payment.country, among=[1])",
    "another word": 'ps.expect(Payment.amount, between=(0, 1), otherwise="drop")',
    "a rule of two records": "ps.expect(lambda a, b: True)",
}
WRONG = {
    "a misspelt column of an event": ("ps.sum(Payment.amount", "ps.sum(Payment.amont"),
    "a sum over text": ("ps.sum(Payment.amount", "ps.sum(Payment.country"),
    "a misspelt feature": ("self.spend", "self.spned"),
    "a misspelt column of the event being answered": ("now.amount", "now.amuont"),
}
CHECKERS = {
    "mypy": [sys.executable, "-m", "mypy", "--strict", "--no-incremental"],
    "pyright": [sys.executable, "-m", "pyright", "--pythonpath", sys.executable],
}


def check(checker: str, folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "cards.py").write_text(text)
    (folder / "pyrightconfig.json").write_text(f'{{"typeCheckingMode": "strict", "extraPaths": ["{ROOT / "shared"}"]}}')
    silent = (
        "[mypy-penstock.*]\nfollow_imports = silent\n"  # as for users, who have it installed: what is said is about their file
    )
    (folder / "mypy.ini").write_text(f"[mypy]\nmypy_path = {ROOT / 'shared'}\n{silent}")
    return subprocess.run([*CHECKERS[checker], "cards.py"], cwd=folder, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_project_type_checks_strictly(checker: str, tmp_path: Path) -> None:
    said = check(checker, tmp_path, GOOD)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.parametrize("checker", CHECKERS)
def test_each_misspelling_is_a_type_error(checker: str, tmp_path: Path) -> None:
    view = "@ps.features" + GOOD.partition("@ps.features")[2].partition("ps.expect")[0]
    text = GOOD
    for number, (good, wrong) in enumerate(WRONG.values()):
        text += "\n" + view.replace("Card:", f"Card{number}:").replace(good, wrong)
    text += "\n" + "\n".join(EXPECTED.values())
    said = check(checker, tmp_path, text)
    lines = text.splitlines()
    for name, wrong in {**{name: wrong for name, (_, wrong) in WRONG.items()}, **EXPECTED}.items():
        at = next(i for i, line in enumerate(lines, 1) if wrong in line)
        assert f"cards.py:{at}:" in said.stdout, f"{checker} did not find {name} in line {at}:\n{said.stdout}"
