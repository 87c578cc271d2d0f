"""keys: who may ask the HTTP servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from . import screen
from .options import command, settings_of

if TYPE_CHECKING:
    from ..doors.keys import Keys

__all__ = ["app"]

app = typer.Typer(help="API keys: who may ask the HTTP servers.", no_args_is_help=True)

HEADERS: Final = ("id", "name", "scopes", "rate", "made")
File = Annotated[
    str,
    typer.Option(
        "--keys", metavar="FILE", help="Where keys are kept; default: PENSTOCK_HTTP_KEYS, else keys.json in PENSTOCK_DATA.",
        show_default=False,
    ),
]  # fmt: skip


@command(app)
def create(
    name: Annotated[str, typer.Argument(help="Whose it is.", show_default=False)],
    scope: Annotated[
        list[str],
        typer.Option("--scope", help="What it may: predict, publish, label, admin. Can be given often.", show_default=False),
    ],
    rate: Annotated[
        str,
        typer.Option("--rate", help="How often it may ask, such as 600/minute; default: PENSTOCK_HTTP_RATE.", show_default=False),
    ] = "",
    keys: File = "",
) -> None:
    """Make a key, and show it this once.

    A server that reads the file takes it within a second.

    penstock keys create reports --scope predict --rate 600/minute
    """
    if rate:
        from ..doors.rates import rate_of

        rate_of(rate)
    held = _keys(keys, make=True)
    key, words = held.create(name, scope, rate)
    screen.answer({"id": key.id, "name": name, "scopes": key.scopes, "rate": rate, "key": words, "file": str(held.path)}, words)
    screen.note(f"shown this once; its hash is in {held.path}   ask:  curl -H 'Authorization: Bearer {words[:12]}...' ...")
    screen.note(f"servers take it with:  export PENSTOCK_HTTP_KEYS={held.path}")


@command(app, name="list")
def listed(keys: File = "") -> None:
    """List the keys that there are."""
    held = _keys(keys).all()
    table = [(k.id, k.name, " ".join(k.scopes), k.rate or "-", k.made.isoformat()) for k in held]
    said = [
        {**dict(zip(HEADERS, row, strict=True)), "scopes": k.scopes, "rate": k.rate} for row, k in zip(table, held, strict=True)
    ]
    screen.answer(
        said, screen.rows([HEADERS, *table]) if held else "no keys; make one:  penstock keys create NAME --scope predict"
    )


@command(app)
def revoke(id_: Annotated[str, typer.Argument(metavar="ID", show_default=False)], keys: File = "") -> None:
    """Take a key away; servers refuse it within a second."""
    gone = _keys(keys).revoke(id_)
    screen.answer({"revoked": gone.id, "name": gone.name}, f"revoked {gone.id} ({gone.name})")


def _keys(said: str, make: bool = False) -> Keys:
    from pathlib import Path

    from ..doors.keys import Keys, pepper_of

    settings = settings_of()
    path = Path(said or settings.http_keys or settings.data / "keys.json")
    return Keys(path, pepper_of(path, settings.http_pepper.get_secret_value(), make=True) if make else "")
