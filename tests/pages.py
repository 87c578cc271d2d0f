"""Pages as a browser takes them apart: which tags are in use, whether each is closed in order, and where links go."""

from __future__ import annotations

import html.parser

__all__ = ["Reader", "read"]


class Reader(html.parser.HTMLParser):
    """Tags in use, and whether each is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action", "data")]
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(page: str) -> Reader:
    """AssertionError where a tag is not closed."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader
