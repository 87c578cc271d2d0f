"""The page: templates filled with what the project declares and the flow as of now; static/app.js does the rest. Pure.

Every name in it is escaped.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template

from penstock.duration import spoken
from penstock.model import Model
from penstock.picture import stages
from penstock.policy import Every, Incremental, Labels, OnAlarm
from penstock.statistics.kinds import kind_of
from penstock.topics import Topics

from .flow import Flow
from .heat import COLUMNS
from .shown import STEPS

__all__ = ["page"]

NAMED = 4
"""Topics of a stage that its tooltip names."""

FOLDER = Path(__file__).parent / "templates"
PAGE = Template((FOLDER / "page.html").read_text(encoding="utf-8"))
MODEL = Template((FOLDER / "model.html").read_text(encoding="utf-8"))
NO_MODELS = (
    '<section class="model"><h2>No models</h2><p class="empty">This project asks for rows only, so nothing is scored or watched. '
    "Declare a model with <code>@ps.model(...)</code> in its file, then type <code>penstock check</code>.</p></section>"
)


def page(topics: Topics, flow: Flow) -> str:
    """The HTML document, with the flow as of now."""
    facts: dict[str, object] = {"project": topics.project.name, "first": topics.project.events[0].topic}
    facts["until"] = "no closed window yet" if flow.until is None else f"{flow.until:%Y-%m-%d %H:%M}"
    facts |= {"scored": f"{flow.scored:,}", "dead": f"{sum(flow.dead.values()):,}"}
    for place in flow.places:
        names = stages(topics)[place.name]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        facts[f"{place.name}_topics"] = f"{', '.join(names[:NAMED]) or 'none'}{more}"
        facts |= {place.name: f"{place.count:,}", f"{place.name}_waiting": f"{place.waiting or 0:,}"}
    models = "".join(_model(topics, model, at) for at, model in enumerate(topics.project.models))
    some = " hidden" if flow.places[0].count else ""
    reviewed = "" if topics.reviewing else " hidden"
    return PAGE.substitute(_escaped(facts), models=models or NO_MODELS, some=some, reviewed=reviewed)


def _model(topics: Topics, model: Model, at: int) -> str:
    """The tiles of a model; `at` is its place in the project, under which app.js finds it."""
    facts = {
        "at": at,
        "model": model.name,
        "scores": model.scores.topic,
        "truth": repr(model.label.column),
        "label": model.label.event.topic,
        "within": spoken(model.label.within),
        "loss": kind_of(model.label).loss,
        "statistics": topics.statistics(model.name),
        "decisions": topics.models,
        "alarms": topics.alarms,
        "runs": topics.runs,
        "steps": STEPS,
        "columns": COLUMNS,
    }
    stages = [(f"canary {stage.share:.0%}" if stage.share else "shadow", spoken(stage.lasts)) for stage in model.rollout]
    rungs = [*stages, ("champion", "")]
    return MODEL.substitute(
        _escaped(facts),
        offline="" if model.incremental else " hidden",
        ladder="".join(f'<li data-stage="{n}">{name} <small>{lasts}</small></li>' for n, (name, lasts) in enumerate(rungs)),
        due=_due(model),
        watched=_watched(model, topics.alarms),
    )


def _escaped(facts: dict[str, object]) -> dict[str, str]:
    return {name: escape(str(fact)) for name, fact in facts.items()}


def _due(model: Model) -> str:
    """When a model without a champion gets one, as HTML."""
    told = []
    for trigger in model.retrain.triggers:
        if isinstance(trigger, Every):
            told.append(f"{spoken(trigger.first)} after the first label, then every {spoken(trigger.period)}")
        elif isinstance(trigger, OnAlarm):
            told.append("on an alarm")
        elif isinstance(trigger, Incremental):
            told.append(f"online every {spoken(trigger.period)}")
    if told:
        when = f"It is fitted {', '.join(told)}, in stream time."
        return f"No champion yet. {when} See whether the trainer is ready with <code>penstock status</code>."
    add = "<code>retrain=ps.every(...)</code> to <code>@ps.model(...)</code>, then type <code>penstock check</code>"
    return f"No champion, and nothing is declared that would fit one: add {add}."


def _watched(model: Model, alarms: str) -> str:
    """What may raise an alarm, as HTML."""
    if model.monitors:
        watched = "; ".join(
            monitor.signal if isinstance(monitor, Labels) else f"{monitor.signal} every {spoken(monitor.every)}"
            for monitor in model.monitors
        )
        return f"None open. Watched: {watched}. Earlier ones: <code>penstock topics tail {escape(alarms)} --from-beginning</code>"
    add = "<code>monitors=[ps.drift()]</code> to <code>@ps.model(...)</code>, then type <code>penstock check</code>"
    return f"Nothing is watched: add {add}."
