"""A tile: a title, how its numbers are computed, which command shows the same, and what to type while it is empty. Pure."""

from __future__ import annotations

from html import escape

__all__ = ["tile", "typed"]


def tile(name: str, kind: str, title: str, how: str, same: str, body: str) -> str:
    """The HTML of a tile. `how` and `same` are text, shown as the title's tooltip and, for keyboards and fingers, on demand;
    `body` is HTML."""
    return f"""
<section class="tile {kind}" aria-labelledby="{name}-title">
<div class="head">
<h3 id="{name}-title" title="{escape(how)}&#10;The same: {escape(same)}">{escape(title)}</h3>
<details class="how"><summary title="How is this computed?" aria-label="How is this computed? {escape(title)}">how?</summary>
<div class="said"><p>{escape(how)}</p><p>The same on the command line: <code>{escape(same)}</code></p></div></details>
</div>
{body}
</section>"""


def typed(text: str) -> str:
    """Text as HTML; what stands between backticks is to be typed.

    >>> typed("<b>: type `penstock demo`.")
    '&lt;b&gt;: type <code>penstock demo</code>.'
    """
    return "".join(f"<code>{escape(t)}</code>" if at % 2 else escape(t) for at, t in enumerate(text.split("`")))
