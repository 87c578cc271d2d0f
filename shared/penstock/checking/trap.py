"""Traps: what a model may declare and yet will hardly do what was meant. `penstock check` warns of them.

A label comes at any time until `within`. Where silence means something or sources are declared, labels count only then
(`Label.waits`): a stage of a rollout begins with the first that count, and of a span of time that is twice `within` half can be
learned from. The rules:

    rollout    where labels do not wait, `within` fits into the longest that a first stage with too few labels is extended to.
               Later stages go on with its evidence
    rollout    a candidate in shadow is replaced by the next fit, so shadow, which begins with the first label that counts, is
               over before it
    rollout    stages without gates, and gates without stages, decide nothing
    retrain    the first fit is due, and `on=` reaches back, after `within`, where labels wait after twice that
    retrain    what learns has a trigger, what triggers has a learner, alarms have a monitor
    learner    numbers and classes are learned in batch, and served as fitted
    monitors   what is judged every week is judged over a week
"""

from __future__ import annotations

from collections.abc import Iterator

from ..duration import spoken
from ..model import Learner, Model
from ..policy import LONGEST, Every, Incremental, OnAlarm, Skill

__all__ = ["traps"]


def traps(model: Model, learner: Learner | None = None) -> list[str]:
    """In words, each with what to change. `learner` is what the model's function returned, if it could be called."""
    found = [*_rollout(model), *_retrain(model), *_monitors(model), *(_learner(model, learner) if learner else ())]
    return [f"model {model.name}: {trap}" for trap in found]


def _rollout(model: Model) -> Iterator[str]:
    within, stages = model.label.within, model.rollout
    if bool(stages) != bool(model.gates):
        yield (
            "a rollout without gates lets every candidate pass; add gates=[ps.no_worse(by=0.01)]"
            if stages
            else "gates are looked at in a rollout, and there is none; add rollout=[ps.shadow(...)]"
        )
    if not stages:
        return
    first, horizon = spoken(stages[0].lasts), spoken(within)
    if not model.label.waits and stages[0].lasts * LONGEST < within:
        yield (
            f"the first stage of the rollout gives up after {LONGEST} times {first}, and labels may take {horizon}; "
            f'begin with ps.shadow("{horizon}"), or shorten within='
        )
    shadow = sum(stage.lasts for stage in stages if not stage.share)
    between = min((t.period for t in model.retrain.triggers if not isinstance(t, Incremental)), default=0)
    waiting = within if shadow and model.label.waits else 0
    if between and shadow + waiting >= between:
        begins = f", after {spoken(waiting)} until labels count" if waiting else ""
        yield (
            f"a fit may come every {spoken(between)} and replaces the candidate in shadow, which takes {spoken(shadow)}{begins}, "
            f"so few get through; refit less often, or shorten the shadow"
        )


def _retrain(model: Model) -> Iterator[str]:
    within, waits = model.label.within, model.label.waits
    full = [trigger for trigger in model.retrain.triggers if not isinstance(trigger, Incremental)]
    if not model.retrain.triggers:
        yield 'nothing ever fits it, so it never answers; add retrain=ps.every("7d")'
    if any(isinstance(t, OnAlarm) for t in full) and not model.monitors:
        yield "ps.on_alarm waits for alarms, and no monitor raises any; add monitors=[ps.drift(), ps.skill(floor=0.0)]"
    first = min((t.first for t in full if isinstance(t, Every)), default=min((t.period for t in full), default=2 * within))
    enough = 2 * within if waits else within
    if waits and first < enough:
        yield (
            f"the first fit comes after {spoken(first)}, and labels count after {spoken(within)}, so it learns from "
            f'{spoken(first - within) if first > within else "nothing"}; write ps.every(..., first="{spoken(enough)}")'
        )
    for window in sorted({t.window for t in full if 0 < t.window < enough}):
        yield (
            f'on="{spoken(window)}" keeps events so new that their labels, which may take {spoken(within)}, are missing; '
            f'write on="{spoken(enough)}" or longer'
        )


def _monitors(model: Model) -> Iterator[str]:
    for monitor in model.monitors:
        if isinstance(monitor, Skill) and monitor.over < monitor.every:
            over, every = spoken(monitor.over), spoken(monitor.every)
            yield f'skill looks at the last {over} once in {every} and misses the time between; write over="{every}" or longer'


def _regressor(online: object) -> bool:
    """Whether River says so, of the last step of a pipeline."""
    from river.base import Regressor

    *_, last = getattr(online, "steps", {"": online}).values()
    return isinstance(last, Regressor)


def _learner(model: Model, learner: Learner) -> Iterator[str]:
    triggers = model.retrain.triggers
    if learner.online is not None and _regressor(learner.online) != (model.label.task == "regression"):
        kind, other = ("regressor", "is no number") if _regressor(learner.online) else ("classifier", "is a number")
        yield f"online= is a {kind}, and {model.label.column!r} {other}; the trainer refuses it"
    full, online = any(not isinstance(t, Incremental) for t in triggers), model.incremental is not None
    if online and learner.online is None:
        yield "ps.incremental needs an online learner; return ps.Learner(..., online=...), or leave it out of retrain="
    if learner.online is not None and not online:
        yield 'the online learner is never served; add retrain=... | ps.incremental("6h")'
    if full and learner.batch is None:
        yield "ps.every and ps.on_alarm fit a batch learner; return ps.Learner(batch=..., ...), or leave them out of retrain="
    if learner.batch is not None and triggers and not full:
        yield 'the batch learner is never fitted; add retrain=... | ps.every("7d")'
