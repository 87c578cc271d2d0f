"""Lineage: what every number of a project is made from, column by column, from topics through views to models. Pure.

    topic -> event column -> feature -> derived feature -> model
                         \\-> view (its key)    label column -> model

A derived feature depends on what its body names: `self.x` and `now.y`. Where the body hands `self` or `now` on as a whole,
it depends on all that it could read.
"""

from __future__ import annotations

import dis
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .event import Event
from .feature import Derived, View
from .project import Project

__all__ = ["Edge", "Lineage", "Node", "reads"]


@dataclass(frozen=True)
class Node:
    """`kind` is topic, column, feature, derived or model; `of` is the event, view or project that it belongs to. The id is the
    name, of topics and models `topic:name` and `model:name`, which may be called alike."""

    id: str
    kind: str
    of: str
    said: str = ""
    """How it is defined: the type of a column, a feature as it was written."""


@dataclass(frozen=True)
class Edge:
    """`role` is field (a column of a topic), key, value, condition, input or label."""

    start: str
    end: str
    role: str


class Lineage:
    """The graph of a project: nodes in the order in which data flows, and edges (a dict, for its order and no repeats) that
    never lead back."""

    def __init__(self, project: Project) -> None:
        self.nodes: dict[str, Node] = {}
        self.edges: dict[Edge, None] = {}
        self.views = list(dict.fromkeys(view for hop in project.topology.hops for view in hop.views))
        for event in project.events:
            self._add(f"topic:{event.topic}", "topic", repr(event))
            for column in event.columns.values():
                optional = " | None" if column.optional else ""
                self._add(repr(column), "column", repr(event), f"{column.type.__name__}{optional}")
                self._join(f"topic:{event.topic}", repr(column), "field")
        for view in self.views:
            self._view(view)
        for model in project.models:
            scored = f"model:{model.name}"
            self._add(scored, "model", project.name, f"scores {model.scores!r}")
            for name in model.inputs:
                self._join(name, scored, "input")
            self._join(repr(model.label.column), scored, "label")

    def _view(self, view: View) -> None:
        for feature in view.features:
            self._add(repr(feature), "feature", view.name, feature.spelled())
            for part in (each for whole in feature.parts for each in whole.of or (whole,)):
                for column in view.by[part.event]:
                    self._join(repr(column), repr(feature), "key")
                self._join(repr(part.column or part.event.time), repr(feature), "value")
                if part.condition.column is not None:
                    self._join(repr(part.condition.column), repr(feature), "condition")
                if part.condition.predicate is not None:
                    given = {name: repr(column) for name, column in part.event.columns.items()}
                    for name in _named(part.condition.predicate, [given]):
                        self._join(name, repr(feature), "condition")
        known = [feature.name for feature in view.features]
        for item in view.derived:
            self._add(repr(item), "derived", view.name, item.spelled())
            for name in reads(item, known, view.by):
                self._join(name, repr(item), "value")
            known.append(item.name)

    def _add(self, name: str, kind: str, of: str, said: str = "") -> None:
        self.nodes[name] = Node(name, kind, of, said)

    def _join(self, start: str, end: str, role: str) -> None:
        self.edges[Edge(start, end, role)] = None

    def above(self, name: str) -> list[str]:
        """Everything that a node is made from, nearest first."""
        return self._reached(name, ((edge.end, edge.start) for edge in self.edges))

    def below(self, name: str) -> list[str]:
        """Everything that is made from a node, nearest first."""
        return self._reached(name, ((edge.start, edge.end) for edge in self.edges))

    @staticmethod
    def _reached(name: str, steps: Iterable[tuple[str, str]]) -> list[str]:
        onward: dict[str, list[str]] = {}
        for here, there in steps:
            onward.setdefault(here, []).append(there)
        found = {name: None}
        for here in (queue := [name]):
            for there in onward.get(here, []):
                if there not in found:
                    found[there] = None
                    queue.append(there)
        return list(found)[1:]

    def readers(self, view: View) -> list[str]:
        """The names of the models that read any value of a view."""
        named = {name for column in view.columns for name in self.below(column)}
        return [node.id.removeprefix("model:") for node in self.nodes.values() if node.kind == "model" and node.id in named]

    def named(self, name: str) -> list[str]:
        """The ids that a person may mean: a topic, a column, a feature, a model, or all of an event or view."""
        exact = [known for known in (name, f"topic:{name}", f"model:{name}") if known in self.nodes]
        return exact or [node.id for node in self.nodes.values() if node.of == name and node.kind not in ("topic", "model")]


def reads(item: Derived[float], features: Iterable[str], events: Iterable[Event]) -> list[str]:
    """Names of what a derived feature depends on: features of its view that stand above it, columns of its event.

    >>> from penstock.examples.flights import Origin
    >>> reads(Origin.waiting, ["planned_1h", "planned_4h", "departures_3h", "delay_1h"], [])
    ['Origin.planned_4h', 'Origin.planned_1h', 'Origin.departures_3h']
    """
    hinted = [event for event in events if item.wants_event and item.event_hint in (event.type, event.type.__name__)]
    own = {name: f"{item.view}.{name}" for name in features}
    given = {name: repr(column) for event in hinted for name, column in event.columns.items() if column.kind == "number"}
    return _named(item.body, [own, given])


def _named(body: Callable[..., Any], arguments: Sequence[Mapping[str, str]]) -> list[str]:
    """What a body reads of its arguments, by what their attributes stand for; all of them where it hands one on as a whole."""
    known = dict(zip(body.__code__.co_varnames, arguments, strict=False))
    found: dict[str, None] = {}
    for owner, name in _attributes(body):
        named = known.get(owner, {})
        found |= dict.fromkeys(named.values() if name is None else [named[name]] if name in named else [])
    return list(found)


def _attributes(body: Callable[..., Any]) -> Iterator[tuple[str, str | None]]:
    """(local name, attribute) as the body loads them; None for the attribute where the local is used as a whole."""
    for loaded, used in itertools.pairwise(dis.get_instructions(body)):
        if loaded.opname.startswith("LOAD_FAST"):
            names = loaded.argval if isinstance(loaded.argval, tuple) else (loaded.argval,)  # 3.13 loads two at once
            yield from ((name, None) for name in names[:-1])
            yield names[-1], used.argval if used.opname in ("LOAD_ATTR", "LOAD_METHOD") else None
