"""Monitoring: what became of the answers, and whether they can still be trusted.

reads     <p>.predictions.<model>, label events        one shard a partition (lane "monitoring")
          <p>.hops.statistics                          one shard in all (lane "judge")
          <p>.predictions.<model>, <p>.flags, <p>.reviews    one shard a partition (lane "review"), where a model is reviewed
          <p>.alarms                                   one shard in all (lane "notifier")
          <p>.notices                                  one courier a route to people
follows   <p>.clock                                    which times are closed
          <p>.models                                   the reference bins of every version, and what explains it
          <p>.silences                                 what people want to hear nothing of
writes    <p>.outcomes.<model>                         an answer and its truth, as soon as it is known
          <p>.hops.statistics                          each shard's counts of each window (Partial)
          <p>.statistics.<model>                       closed windows, merged over the shards
          <p>.cohorts.<model>                          the answers of a span of time, restated as labels come
          <p>.queue, <p>.reviewed, label events        what people are asked about, what came of it, and their decisions
          <p>.alarms                                   raised, held, cleared, with evidence
          <p>.notices                                  which of them people are told of
state     a shard: answers and labels that wait (table), windows under way and positions (position)
          the judge: windows that wait for a shard, the last weeks' sums, cohorts under way, habits, alarms
          a review shard: answers within their horizon and what was said of them (table)
          the notifier: what people know, and want not to hear; a courier: how far it is

predictions + labels -> PairingShard -> outcomes, partials -> JudgeShard -> statistics, alarms
predictions + flags + reviews -> ReviewShard -> queue, reviewed, labels
alarms + silences -> NotifierShard -> notices -> Courier -> people
"""

from __future__ import annotations

from penstock.artefact import Artefacts
from penstock.duration import DAY, HOUR
from penstock.log import Log
from penstock.project import Project
from penstock.runtime.lane import Lane
from penstock.runtime.telemetry import Tracing
from penstock.store import Store
from penstock.topics import Topics

from .judge import JudgeShard
from .notifier import NotifierShard
from .pairing import PairingShard
from .reviewer import ReviewShard

__all__ = ["lanes"]


def lanes(
    project: Project,
    topics: Topics,
    log: Log,
    store: Store,
    idle_after: float = 5.0,
    tracing: Tracing | None = None,
    artefacts: Artefacts | None = None,
    window: int = HOUR,
    repeat: int = 7 * DAY,
) -> list[Lane]:
    """The lanes of the service, the notifier last; without models there is only that. `artefacts`: see PairingShard; `window`,
    `repeat`: see NotifierShard."""
    models = project.models
    notifier = Lane(
        "notifier",
        log,
        store,
        shard=lambda number: NotifierShard(topics, window, repeat),
        shared=[topics.alarms],
        follows=[topics.silences],
        writes=[topics.notices],
        group=topics.group("notifier"),
    )
    if not models:
        return [notifier]
    predictions = [topics.predictions(model.name) for model in models]
    labels = [model.label.event.topic for model in models]
    return [
        Lane(
            "monitoring",
            log,
            store,
            shard=lambda number: PairingShard(number, models, topics, idle_after, artefacts),
            shared=list(dict.fromkeys([*predictions, *labels])),
            follows=(topics.clock, topics.models),
            writes=[
                topics.partials,
                *(topics.outcomes(model.name) for model in models),
                *map(topics.dead_letters, dict.fromkeys([*predictions, *labels])),
            ],
            tracing=tracing,
            group=f"{topics.prefix}.monitoring",
        ),
        Lane(
            "judge",
            log,
            store,
            shard=lambda number: JudgeShard(models, topics),
            shared=[topics.partials],
            writes=[topics.alarms, *(name(model.name) for model in models for name in (topics.statistics, topics.cohorts))],
            group=f"{topics.prefix}.judge",
        ),
        *_reviews(topics, log, store),
        notifier,
    ]


def _reviews(topics: Topics, log: Log, store: Store) -> list[Lane]:
    """The lane of what people are asked about, where a model wants that."""
    if not topics.reviewing:
        return []
    labels = dict.fromkeys(model.label.event.topic for model in topics.reviewing)
    return [
        Lane(
            "review",
            log,
            store,
            shard=lambda number: ReviewShard(number, topics),
            shared=[*(topics.predictions(model.name) for model in topics.reviewing), topics.flags, topics.reviews],
            writes=[
                topics.queue, topics.reviewed, *labels, topics.dead_letters(topics.flags), topics.dead_letters(topics.reviews),
            ],
            group=topics.group("review"),
        )
    ]  # fmt: skip
