"""schemas: the contracts as files, written or compared."""

from __future__ import annotations

import json as jsons
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ..errors import PenstockError
from . import screen
from .options import command, project_settings, topics_of

if TYPE_CHECKING:
    from ..settings import Settings

__all__ = ["app", "wanted"]

app = typer.Typer(
    help="The contracts as files: JSON Schema, AsyncAPI, OpenAPI.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Folder = Annotated[Path, typer.Option("--to", metavar="DIR", help="Where the files are.", show_default=True)]


@command(app)
def export(
    to: Folder = Path("schemas"),
    breaking: Annotated[
        bool, typer.Option("--breaking", help="Write them even where they break who reads or writes by the old ones.")
    ] = False,
) -> None:
    """Write the files; refuses a change that breaks a version."""
    new = wanted(project_settings())
    broken = _broken(to, new)
    if broken and not breaking:
        raise PenstockError(f"{screen.count(len(broken), 'change')} would break readers or writers: {'; '.join(broken)}", _MEND)
    to.mkdir(parents=True, exist_ok=True)
    changed = [name for name, text in new.items() if _read(to / name) != text]
    for name in changed:
        (to / name).write_text(new[name], encoding="utf-8")
    gone = _stale(to, new)
    for name in gone:
        (to / name).unlink()
    screen.answer(
        {"folder": str(to), "files": len(new), "written": changed, "removed": gone},
        (f"  wrote {to / name}" for name in changed),
        (f"  removed {to / name}" for name in gone),
        f"{screen.count(len(new), 'file')} in {to}, {len(changed)} written",
    )


@command(app)
def check(to: Folder = Path("schemas")) -> None:
    """Compare the files with the code.

    Exit code 1 where they differ, and where a change breaks who reads or writes by the old ones.
    """
    new = wanted(project_settings())
    differing = [name for name, text in new.items() if _read(to / name) != text]
    differing += _stale(to, new)
    broken = _broken(to, new)
    lines = [f"  {to / name} {_why(to / name, new)}" for name in differing]
    lines += [f"  {screen.paint('breaking', 'red')}  {change}" for change in broken]
    well = f"ok: {screen.count(len(new), 'file')} in {to} are what the code says"
    screen.answer({"folder": str(to), "files": len(new), "differing": differing, "breaking": broken}, lines or well)
    if broken:
        raise PenstockError(f"{screen.count(len(broken), 'change')} would break readers or writers of {to}", _MEND)
    if differing:
        raise PenstockError(
            f"{screen.count(len(differing), 'file')} in {to} are not what the code says",
            f"penstock schemas export --to {to}   and commit them",
        )


def _why(path: Path, new: dict[str, str]) -> str:
    if not path.exists():
        return "is missing"
    return "differs from the code" if path.name in new else "is of no topic any more"


_MEND: Final = "keep the old field and add an optional one; or, knowing who breaks:  penstock schemas export --breaking"


def wanted(settings: Settings) -> dict[str, str]:
    """File name -> text, of everything that is described."""
    from ..schemas import files, text

    # As many partitions as are declared by default, so that one's own setting does not change the files.
    found = files(topics_of(settings.model_copy(update={"partitions": type(settings).model_fields["partitions"].default})))
    found["openapi.features.json"] = text(import_module("penstock.services.feature_store.api").openapi())
    found["openapi.json"] = text(import_module("penstock.services.inference.gateway.api").openapi())
    return dict(sorted(found.items()))


def _broken(folder: Path, new: dict[str, str]) -> list[str]:
    """Breaking changes of the JSON Schemas, by file."""
    from ..schemas import breaks

    found = []
    for name, text in new.items():
        old = _read(folder / name)
        if old is not None and name.endswith(".v1.json") and old != text:
            try:
                before = jsons.loads(old)
            except ValueError as error:
                raise PenstockError(f"{folder / name} is no JSON: {error}", f"git checkout {folder / name}") from None
            found += [f"{name} {change}" for change in breaks(before, jsons.loads(text))]
    return found + [f"{name} was removed" for name in _stale(folder, new) if name.startswith("penstock.")]


def _stale(folder: Path, new: dict[str, str]) -> list[str]:
    """Schemas that nothing generates any more."""
    return sorted(path.name for path in folder.glob("*.v1.json") if path.name not in new)


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None
