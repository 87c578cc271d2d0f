"""The tiles of one model, as the project declares it: places for app.js to fill, and what to type while they are empty. Pure."""

from __future__ import annotations

from html import escape

from penstock.duration import spoken
from penstock.model import Model
from penstock.policy import Every, Incremental, OnAlarm
from penstock.topics import Topics

from .heat import COLUMNS
from .shown import STEPS
from .tile import tile, typed

__all__ = ["model_tiles"]

SIGNS = {"alarm": "▲ alarm", "cleared": "△ cleared", "fit": "● fit", "champion": "◆ champion", "back": "◀ rolled back"}
SKILL = "1 - log loss / log loss of the prior, over the time that the skill monitor looks back (7d without one)"
AUC = "Area under the ROC curve of what was served, in the newest window with labels"
ONLINE = "Snapshots of the online learner answer beside the champion, weighted by how well each of them did"


def model_tiles(topics: Topics, model: Model, at: int) -> str:
    """The HTML of a model; `data-model` is its place in the project, under which app.js finds it."""
    key, truth = f"m{at}", repr(model.label.column)
    return f"""
<section class="model" data-model="{at}" aria-labelledby="{key}-name">
<h2 id="{key}-name">{escape(model.name)}
<small>answers {escape(model.scores.topic)}, truth {escape(truth)} within {spoken(model.label.within)}</small></h2>
<div class="columns">
<div class="left">{_quality(topics, model, key)}{_drift(topics, model, key)}</div>
<div class="right">{_rollout(topics, model, key)}{_alarms(topics, model, key)}{_news(topics, model, key)}</div>
</div>
</section>"""


def _tail(*topics: str) -> str:
    return f"penstock topics tail {' or '.join(topics)} --from-beginning"


def _quality(topics: Topics, model: Model, key: str) -> str:
    how = (
        "Mean log loss (natural logarithm, lower is better) of the labels that became known in each window, of the answers as "
        "they were served. The prior answers with the label rate of the seven days before: a model above it is worse than no "
        f"model. Steps, never smoothed; no label in a window is a gap. At most {STEPS} steps; more windows are added together."
    )
    empty = (
        "No window has closed yet: quality is known when labels are. Events, then labels, must be published, and time must "
        f"pass. Publish labels with `penstock publish {model.label.event.topic} --file FILE`; `--final` closes all windows."
    )
    signs = "".join(f' <span class="key sign {kind}">{text}</span>' for kind, text in SIGNS.items())
    body = f"""
<p class="keys"><span class="key served">served</span> <span class="key prior">prior</span>
<span class="key challenger" data-part="challenger-key" hidden>challenger</span> <span class="key bars">labels</span>{signs}</p>
<div class="chart" data-part="chart" tabindex="0" role="group" hidden
 aria-label="Log loss over time; arrow keys read it step by step"></div>
<p class="readout" data-part="readout" aria-live="polite" hidden></p>
<p class="empty" data-part="chart-empty">{typed(empty)}</p>"""
    return tile(
        f"{key}-quality", "quality", "Quality: log loss of what was answered", how, _tail(topics.statistics(model.name)), body
    )


def _drift(topics: Topics, model: Model, key: str) -> str:
    how = (
        "Kolmogorov-Smirnov distance between an input's values in a window and in the champion's training data, in multiples "
        "of its limit: the greater of what chance explains (critical) and what is declared as material. A cell at 1 or more is "
        "above it. An alarm asks for more where an input has always moved much (its habit; see the alarm's evidence). "
        f"The newest {COLUMNS} windows."
    )
    empty = (
        "No window was compared yet: that begins with the first champion, whose training data are the reference. "
        "See the services with `penstock status`."
    )
    body = f"""
<div class="map" data-part="heat" hidden></div>
<p class="readout" data-part="heat-readout" aria-live="polite" hidden></p>
<p class="empty" data-part="heat-empty">{typed(empty)}</p>"""
    title = "Drift: inputs against what the champion was fitted on"
    return tile(f"{key}-drift", "drift", title, how, _tail(topics.statistics(model.name)), body)


def _rollout(topics: Topics, model: Model, key: str) -> str:
    how = (
        "The newest decisions of the registry: which version answers, which one is tried beside it, how far it is, and the "
        "difference in log loss on the same events, with its standard error."
    )
    stages = [(f"canary {stage.share:.0%}" if stage.share else "shadow", spoken(stage.lasts)) for stage in model.rollout]
    ladder = "".join(f'<li data-stage="{at}">{name} <small>{lasts}</small></li>' for at, (name, lasts) in enumerate(stages))
    online = f'<dt title="{ONLINE}">online</dt><dd data-part="online">none</dd>' if model.incremental else ""
    body = f"""
<dl class="versions">
<dt>champion</dt><dd data-part="champion">none</dd>
{online}
<dt>challenger</dt><dd data-part="challenger">none</dd>
</dl>
<ol class="ladder" data-part="ladder" aria-label="Stages of the rollout">{ladder}<li data-stage="{len(stages)}">champion</li></ol>
<p class="numbers"><span title="{SKILL}">skill <b data-part="skill">–</b></span>
<span title="{AUC}">AUC <b data-part="auc">–</b></span>
<span title="Labels behind the newest window that had any">on <b data-part="judged">–</b> labels</span></p>
<p class="empty" data-part="champion-empty">{typed(_due(model))}</p>"""
    return tile(f"{key}-rollout", "rollout", "In charge", how, _tail(topics.models), body)


def _due(model: Model) -> str:
    """When a model without a champion gets one."""
    triggers = []
    for trigger in model.retrain.triggers:
        if isinstance(trigger, Every):
            triggers.append(f"{spoken(trigger.first)} after the first label, then every {spoken(trigger.period)}")
        elif isinstance(trigger, OnAlarm):
            triggers.append("on an alarm")
        elif isinstance(trigger, Incremental):
            triggers.append(f"online every {spoken(trigger.period)}")
    if not triggers:
        return (
            "No champion, and nothing is declared that would fit one: add `retrain=ps.every(...)` to `@ps.model(...)`, "
            "then type `penstock check`."
        )
    when = ", ".join(triggers)
    return f"No champion yet. It is fitted {when}, in stream time. See whether the trainer is ready with `penstock status`."


def _alarms(topics: Topics, model: Model, key: str) -> str:
    watched = "; ".join(f"{monitor.signal} every {spoken(monitor.every)}" for monitor in model.monitors)
    how = (
        "Raised and not yet cleared (two clean windows in a row clear one), with the newest evidence. "
        f"Declared: {watched or 'no monitor'}."
    )
    empty = f"None open. Watched: {watched}. Earlier ones: `{_tail(topics.alarms)}`."
    if not watched:
        empty = "Nothing is watched: add `monitors=[ps.drift()]` to `@ps.model(...)`, then type `penstock check`."
    body = f"""
<ul class="list" data-part="alarms"></ul>
<p class="empty" data-part="alarms-empty">{typed(empty)}</p>"""
    return tile(f"{key}-alarms", "alarms", "Open alarms", how, _tail(topics.alarms), body)


def _news(topics: Topics, model: Model, key: str) -> str:
    how = "Alarms raised and cleared, fits and decisions about this model, newest first, as the topics told them."
    empty = (
        f"Nothing happened yet. The first fit will be told here; see it come with `penstock topics tail {topics.runs} --follow`."
    )
    body = f"""
<ol class="list" data-part="news" hidden tabindex="0" aria-label="Newest happenings"></ol>
<p class="empty" data-part="news-empty">{typed(empty)}</p>"""
    same = _tail(topics.alarms, topics.runs, topics.models)
    return tile(f"{key}-news", "news", "Newest happenings", how, same, body)
