"""The page: one document, written at each request; static/app.js fills it from /events. Every name in it is escaped. Pure."""

from __future__ import annotations

from html import escape

from penstock.topics import Topics

from .flow import Flow, Place, stages_of
from .model_tiles import model_tiles
from .tile import tile, typed

__all__ = ["page"]

STAGES = {
    "events": "Events published on the project's topics, all kinds together.",
    "rows": "Scored events that have their features.",
    "predictions": "Rows that were answered.",
    "outcomes": "Answers whose truth is known.",
}
WAITING = {
    "rows": ("lag", "Lag of the feature store: scored events that are neither a row nor a dead letter yet."),
    "predictions": ("lag", "Lag of inference: rows that were not answered yet."),
    "outcomes": ("await their label", "Answers without an outcome: their label is still to come, or never came."),
}
STREAM_TIME = "The end of the newest closed window. All times on this page are stream time in UTC, the time of the events."
NAMED = 4
"""Topics of a stage that its tooltip names."""


def page(topics: Topics, flow: Flow) -> str:
    """The HTML document, with the flow as of now."""
    name = escape(topics.project.name)
    models = "".join(model_tiles(topics, model, at) for at, model in enumerate(topics.project.models))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{name} · Penstock</title>
<link rel="icon" type="image/svg+xml" href="static/icon.svg">
<link rel="stylesheet" href="static/style.css">
<script src="static/app.js" defer></script>
</head>
<body>
<a class="skip" href="#main">Skip to the tiles</a>
<header>
<h1><img src="static/icon.svg" alt="" width="22" height="22"> Penstock <span class="project">{name}</span></h1>
<p class="until" title="{STREAM_TIME}">stream time
<time id="until">{"no closed window yet" if flow.until is None else f"{flow.until:%Y-%m-%d %H:%M}"}</time></p>
<p id="status" class="status" role="status" data-state="waiting">
<span class="lamp" aria-hidden="true"></span> <span id="status-text">connecting</span></p>
</header>
<main id="main">
<noscript><p class="banner">The charts need JavaScript. The numbers here are as of loading;
<a href="picture">everything as JSON</a>.</p></noscript>
<p id="trouble" class="banner" role="alert" hidden></p>
{_flow(topics, flow)}
{models or _no_models(topics)}
</main>
<footer>One more reader of the topics: it sends nothing and keeps nothing.
<a href="picture">This page as JSON</a> · <a href="metrics">metrics</a></footer>
</body>
</html>
"""


def _flow(topics: Topics, flow: Flow) -> str:
    stages = stages_of(topics)
    cells = "".join(_pipe(place, flow) + _place(place, stages[place.name]) for place in flow.places)
    empty = (
        f"Nothing was published yet. Type `penstock publish {topics.project.events[0].topic} --file FILE`, "
        "or see a complete run with `penstock demo`."
    )
    body = f"""
<ol class="flow" aria-label="The flow, from events to outcomes">{cells}</ol>
<p class="dead" id="dead" data-some="{int(flow.dead_total > 0)}">
<span aria-hidden="true" id="dead-sign">{"▲" if flow.dead_total else "✓"}</span>
<b id="dead-count">{flow.dead_total:,}</b> <span id="dead-noun">dead letters</span> <span id="dead-list"></span></p>
<p class="empty" id="flow-empty"{" hidden" if flow.places[0].count else ""}>{typed(empty)}</p>"""
    how = (
        "Counts are the ends of the topics, partitions added: records written since the topics exist. Rates are over the last "
        "10 seconds of wall clock. Lag is the difference of two stages less what became a dead letter."
    )
    return tile("flow", "wide", "Flow", how, "penstock topics list (dead letters: penstock dlq list)", body)


def _place(place: Place, topics: list[str]) -> str:
    named = ", ".join(topics[:NAMED]) + (f" and {len(topics) - NAMED} more" if len(topics) > NAMED else "")
    return f"""
<li class="place" title="{escape(STAGES[place.name])} Topics: {escape(named or "none")}"><span class="name">{place.name}</span>
<b class="number" data-count="{place.name}">{place.count:,}</b>
<span class="rate" data-rate="{place.name}">rate not known yet</span></li>"""


def _pipe(place: Place, flow: Flow) -> str:
    """What lies before a stage: how much waits there."""
    if place.waiting is None:
        return ""
    word, meaning = WAITING[place.name]
    scored = f'scored <b id="scored">{flow.scored:,}</b>, ' if place.name == "rows" else ""
    return f"""
<li class="pipe" data-pipe="{place.name}" data-strength="0"><span class="water" aria-hidden="true"></span>
<span class="wait" title="{escape(meaning)}">{scored}{word} <b data-waiting="{place.name}">{place.waiting:,}</b></span></li>"""


def _no_models(topics: Topics) -> str:
    empty = (
        f"The project {topics.project.name} asks for rows only, so nothing is scored or watched. Declare a model with "
        "`@ps.model(...)` in its file, then type `penstock check`."
    )
    return f'<section class="model"><h2>No models</h2><p class="empty">{typed(empty)}</p></section>'
