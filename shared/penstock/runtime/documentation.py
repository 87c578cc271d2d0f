"""/docs: openapi.json as a page on which everything can be tried. All of it comes from this package: it works offline, and the
browser is told to load nothing from anywhere else."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Page", "page"]

FOLDER: Final = Path(__file__).parent / "docs"
NAMES: Final = {  # path -> file, media type
    "/docs": ("index.html", b"text/html; charset=utf-8"),
    "/docs/start.js": ("start.js", b"text/javascript; charset=utf-8"),
    "/docs/swagger-ui.css": ("swagger-ui.css.gz", b"text/css; charset=utf-8"),
    "/docs/swagger-ui-bundle.js": ("swagger-ui-bundle.js.gz", b"text/javascript; charset=utf-8"),
}
POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI styles its elements inline, and its pictures are data; scripts are ours alone."""


class Page(NamedTuple):
    """A file of the page."""

    headers: list[tuple[bytes, bytes]]
    body: bytes


@cache
def page(path: str) -> Page | None:
    """What is at a path; None: nothing of ours."""
    if path not in NAMES:
        return None
    name, kind = NAMES[path]
    body = (FOLDER / name).read_bytes()
    headers = [
        (b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"content-security-policy", POLICY),
        (b"cache-control", b"no-cache"), (b"referrer-policy", b"no-referrer"), (b"x-frame-options", b"DENY"),
        (b"cross-origin-opener-policy", b"same-origin"), (b"cross-origin-resource-policy", b"same-origin"),
    ]  # fmt: skip
    if name.endswith(".gz"):
        headers.append((b"content-encoding", b"gzip"))  # to all: there is no browser that cannot
    return Page(headers, body)
