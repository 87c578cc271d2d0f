"""Inference: answers every row, and every request, with what the registry says is in charge.

reads    <p>.rows.<event>          finished rows, partitions shared among members
follows  <p>.models                decisions; a swap takes effect between two batches, with no gap
         <p>.clock                 which times the feature store has closed
writes   <p>.predictions.<model>, <p>.inferences, <p>.rows.<event>.dlq; closes predictions on <p>.clock;
         what is said over HTTP: your events, <p>.flags, <p>.reviews
state    positions, and the alias records as of then; artefacts are opened by digest, once a process
serves   POST /predict/{model}, /events/{event}, /flags/{model}, /reviews/{model}, /v2 (Open Inference Protocol),
         /healthz, /readyz, /metrics, /openapi.json

How a row becomes a prediction: `shard` reads it with `rows`, a `desk` asks `penstock.scoring`, which asks the versions on duty.
Who is on duty: `penstock.scoring.roster` folds decisions, `duty` has `sessions` open their artefacts, `explainers` say why. The
same over HTTP is the `gateway`; tensors are answered by the `open_inference` protocol, there and in `penstock serve`.
"""

from __future__ import annotations

from collections.abc import Callable

from penstock.log import Log
from penstock.runtime.lane import Lane, now
from penstock.runtime.telemetry import Tracing
from penstock.store import Store
from penstock.topics import Topics

from .meters import Meters
from .sessions import Sessions
from .shard import ScoringShard

__all__ = ["lanes"]


def lanes(
    topics: Topics,
    log: Log,
    store: Store,
    sessions: Sessions,
    meters: Meters,
    clock: Callable[[], float] | None = now,
    tracing: Tracing | None = None,
) -> list[Lane]:
    """The one lane of this service; none for a project without models. Give no `clock` to replay: latencies are 0."""
    models = topics.project.models
    if not models:
        return []
    writers = [f"feature_store.{number}" for number in range(topics.partitions)]
    return [
        Lane(
            "inference",
            log,
            store,
            lambda number: ScoringShard(topics, number, sessions, meters, writers, clock),
            list(dict.fromkeys(topics.rows(model.scores) for model in models)),
            follows=[topics.models, topics.clock],
            clock=topics.clock,
            writes=list(dict.fromkeys(topics.dead_letters(topics.rows(model.scores)) for model in models)),
            closes=[topics.predictions(model.name) for model in models],
            tracing=tracing,
            group=f"{topics.prefix}.inference",
            apart=any(model.functions for model in models),
        )
    ]
