"""What the README shows is what the product does. `python tests/examples/test_readme.py` writes its generated parts anew."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from typer.testing import CliRunner

from penstock.checking.trap import traps
from penstock.cli import app

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PARTS = {"topology": ["topology", "--mermaid"], "settings": ["config", "show", "--markdown"]}


def fresh(text: str) -> str:
    """The README with its generated parts as the commands print them now."""
    for name, command in PARTS.items():
        said = CliRunner().invoke(app, command)
        assert said.exit_code == 0, said.output
        body = f"```mermaid\n{said.stdout.strip()}\n```" if name == "topology" else said.stdout.strip()
        before, _, rest = text.partition(f"<!-- {name} -->")
        after = rest.partition(f"<!-- /{name} -->")[2]
        text = f"{before}<!-- {name} -->\n{body}\n<!-- /{name} -->{after}"
    return text


def test_the_generated_parts_are_current() -> None:
    assert README.read_text() == fresh(README.read_text()), "run: make schemas"


def test_its_python_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 2
    import types

    module = types.ModuleType("readme_cards")
    sys.modules["readme_cards"] = module
    for block in blocks:
        exec(compile(block, str(README), "exec"), module.__dict__)
    fraud = module.__dict__["project"].model("fraud")
    assert fraud.inputs[-1] == "Card.surge"
    assert traps(fraud, fraud.build()) == []


def test_every_command_that_it_shows_exists() -> None:
    text = README.read_text()
    commands = re.findall(r"^\$ penstock ([^#\n]*)", text, re.MULTILINE) + re.findall(r"`penstock ([^`]*)`", text)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"make ([a-z-]+)", text):
        if target in ("demo", "test", "lint", "bench", "schemas"):
            assert target in targets, target
    assert commands
    for command in commands:
        words = [w for w in command.split() if re.fullmatch(r"[a-z]+", w)][:1]
        if command.split()[0] in ("dlq", "topics", "config", "schemas"):
            words = command.split()[:2]
        said = CliRunner().invoke(app, [*words, "--help"])
        assert said.exit_code == 0, f"penstock {command}: {said.output}"


if __name__ == "__main__":
    README.write_text(fresh(README.read_text()))
