"""Feature store: turns events into rows of window features.

reads    your events         partitions shared among members
         <p>.hops.<key>      events under way between hops, co-partitioned with the views by that key
follows  <p>.clock           which times publishers have closed
         <p>.generations     which generation of the views is in charge
         <p>.passed          where the one in charge has passed a source
writes   <p>.hops.<key>.<g>, <p>.rows.<event>, <p>.passed, <p>.late, <topic>.dlq; a shadow <p>.shadow.<g>; <p>.generations;
         closes rows on <p>.clock
state    window tiles per entity, with the positions they include, in the online store

Lanes of their own, each with its reads and writes in its module: `quality` judges the events, `archive` keeps the data topics.
"""

from __future__ import annotations

from penstock.log import Log
from penstock.runtime.earlier import Earlier
from penstock.runtime.lane import Lane
from penstock.runtime.telemetry import Tracing
from penstock.store import Store
from penstock.topics import Topics

from .shard import FeatureShard
from .succession import Succession

__all__ = ["lanes"]


def lanes(
    topics: Topics,
    log: Log,
    store: Store,
    idle_after: float | None = 5.0,
    tracing: Tracing | None = None,
    history: Earlier | None = None,
    succession: Succession | None = None,
) -> list[Lane]:
    """The one lane of this service; all topics that it shares have the same partitions."""
    topology, turn = topics.project.topology, succession or Succession(topics, log, store)
    shared = [event.topic for hop in topology.hops for event in hop.direct]
    shared += [topics.hop(hop.key) for hop in topology.hops if hop.upstream]
    return [
        Lane(
            "feature_store",
            log,
            store,
            lambda number: FeatureShard(topics, number, idle_after, tracing, turn),
            shared,
            follows=[topics.clock, topics.generations, topics.passed],
            clock=topics.clock,
            writes=[
                *(topics.hop(hop.key) for hop in topology.hops if hop.upstream),
                *(topics.dead_letters(event.topic) for hop in topology.hops for event in hop.direct),
                topics.passed,
                *([topics.late] if topics.bounded else ()),
                topics.shadow,
            ],
            closes=[topics.rows(event) for event in topology.reads],
            tracing=tracing,
            group=topics.group("feature_store"),
            places=topics.shard,
            handover=turn,
            history=history,
        )
    ]
