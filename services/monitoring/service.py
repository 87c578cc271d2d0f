"""Monitoring: what became of the answers, and whether they can still be trusted.

reads     <p>.predictions.<model>, label events        one shard a partition (lane "monitoring")
          <p>.hops.statistics                          one shard in all (lane "judge")
follows   <p>.clock                                    which times are closed
          <p>.models                                   the reference bins of every version, and what explains it
writes    <p>.outcomes.<model>                         an answer and its truth, as soon as it is known
          <p>.hops.statistics                          each shard's counts of each window (Partial)
          <p>.statistics.<model>                       closed windows, merged over the shards
          <p>.cohorts.<model>                          the answers of a span of time, restated as labels come
          <p>.alarms                                   raised, held, cleared, with evidence
state     a shard: answers and labels that wait (table), windows under way and positions (position)
          the judge: windows that wait for a shard, the last weeks' sums, cohorts under way, habits, alarms

predictions + labels -> PairingShard -> outcomes, partials -> JudgeShard -> statistics, alarms
"""

from __future__ import annotations

from penstock.artefact import Artefacts
from penstock.log import Log
from penstock.project import Project
from penstock.runtime.lane import Lane
from penstock.runtime.telemetry import Tracing
from penstock.store import Store
from penstock.topics import Topics

from .judge import JudgeShard
from .pairing import PairingShard

__all__ = ["lanes"]


def lanes(
    project: Project,
    topics: Topics,
    log: Log,
    store: Store,
    idle_after: float = 5.0,
    tracing: Tracing | None = None,
    artefacts: Artefacts | None = None,
) -> list[Lane]:
    """The two lanes of the service; none for a project without models. `artefacts`: see PairingShard."""
    models = project.models
    if not models:
        return []
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
                *(topics.dead_letters(name) for name in predictions),
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
    ]
