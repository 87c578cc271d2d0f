"""The public surface is one list; the layout is what the design says; heavy imports stay where they are needed."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import penstock as ps

ROOT = Path(__file__).parents[2]
TOP = {
    "pyproject.toml", "README.md", "services", "shared", "schemas", "docker-compose.yml", "tests", "k8s",
    "Makefile", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "requirements.lock",
}  # fmt: skip


def tracked() -> list[str]:
    return subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def test_every_public_name_exists_and_the_list_is_sorted() -> None:
    assert ps.__all__ == sorted(ps.__all__)
    for name in ps.__all__:
        assert hasattr(ps, name), name


def test_names_that_are_loaded_when_used_are_offered_before() -> None:
    said = "import penstock as ps, sys; print(set(ps.__all__) <= set(dir(ps)), 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True).stdout == "True False\n"


def test_nothing_else_is_public() -> None:
    import types

    for name in ps.__all__:
        getattr(ps, name)  # those that need pandas are there once they were asked for
    said = {n for n, v in vars(ps).items() if not n.startswith("_") and not isinstance(v, types.ModuleType)}
    assert said == set(ps.__all__)


def test_the_top_level_holds_only_what_the_design_names() -> None:
    there = {name.split("/")[0] for name in tracked()}
    assert {n for n in there if not n.startswith(".")} <= TOP


def test_the_wheel_lists_every_package() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {"penstock"}
    for top, prefix in (("shared/penstock", "penstock"), ("services", "penstock.services")):
        for path in (ROOT / top).rglob("__init__.py"):
            relative = path.parent.relative_to(ROOT / top)
            found.add(".".join([prefix, *relative.parts]))
    assert listed == found


@pytest.mark.parametrize("word", ["utils", "util", "helpers", "helper", "common", "misc", "manager", "base"])
def test_every_module_is_a_noun_of_the_domain(word: str) -> None:
    assert not [name for name in tracked() if Path(name).stem == word]


def test_shared_code_never_names_a_service_module_in_an_import() -> None:
    for path in (ROOT / "shared").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else []
            )
            assert not [n for n in names if n.startswith(("penstock.services", "services"))], path


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("penstock", {"numpy", "numba", "pandas", "sklearn", "river", "aiokafka", "redis", "fastapi", "onnxruntime"}),
        ("penstock.services.inference.service", {"sklearn", "pandas", "river", "skl2onnx", "faust"}),
        ("penstock.services.monitoring.service", {"sklearn", "pandas", "river", "fastapi"}),
        ("penstock.services.registry.service", {"sklearn", "pandas", "river", "numba", "onnxruntime"}),
    ],
)
def test_a_module_imports_only_what_it_needs(module: str, unwanted: set[str]) -> None:
    code = f"import sys, {module}; print(' '.join(m for m in sys.modules if '.' not in m))"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & unwanted


def test_no_address_of_a_package_registry_is_committed() -> None:
    words = ["pypi." + "org", "python" + "hosted", "repo1." + "maven", "registry." + "npmjs", "proxy." + "golang"]
    for name in tracked():
        text = (ROOT / name).read_bytes().decode("utf-8", "replace") if (ROOT / name).is_file() else ""
        assert not [w for w in words if w in text], name
