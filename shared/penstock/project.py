"""A project: everything reachable from its models, validated at once and fingerprinted. There is no registration step."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence

import msgspec

from .errors import DefinitionError
from .event import Event, event_of
from .feature import View, view_of
from .model import Model
from .topology import Topology

__all__ = ["Project", "load"]

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,48}")


class Project:
    """`ps.Project("payments", [fraud])`; `rows={Payment: [Card]}` asks for rows of events that no model scores.

    DefinitionError lists every problem found, in words, before anything starts.
    """

    def __init__(self, name: str, models: Sequence[Model] = (), rows: Mapping[type, Sequence[type]] | None = None) -> None:
        problems = []
        if not _NAME.fullmatch(name):
            problems.append(f"{name!r} is not a project name (lower-case letters, digits, - and _; topics begin with it)")
        names = [m.name for m in models]
        problems += [f"two models are called {n}" for n in sorted({n for n in names if names.count(n) > 1})]
        if not models and not rows:
            problems.append("nothing to do: give a model, or rows={Event: [View]}")
        reads: dict[Event, dict[View, None]] = {}
        for model in models:
            reads.setdefault(model.scores, {}).update(dict.fromkeys(model.views))
        for cls, views in (rows or {}).items():
            reads.setdefault(event_of(cls), {}).update(dict.fromkeys(view_of(v) for v in views))
        self.name, self.models = name, tuple(models)
        labels = [model.label.event for model in models]
        try:
            self.topology = Topology([(event, tuple(views)) for event, views in reads.items()], labels)
        except DefinitionError as error:
            problems.append(f"{error} ({error.fix})")
        else:
            problems += self._clashes()
        if problems:
            raise DefinitionError(f"project {name}: " + "; ".join(problems), "correct the project file and run: penstock check")

    def _clashes(self) -> list[str]:
        topics = [event.topic for event in self.topology.events]
        found = [f"two events share the topic {t}" for t in sorted({t for t in topics if topics.count(t) > 1})]
        return found + [
            f"topic {t} begins with the project's name, which is reserved" for t in topics if t.startswith(self.name + ".")
        ]

    @property
    def events(self) -> tuple[Event, ...]:
        return self.topology.events

    def model(self, name: str) -> Model:
        found = next((m for m in self.models if m.name == name), None)
        if found is None:
            raise DefinitionError(
                f"no model {name!r} in project {self.name}",
                f"it has: {', '.join(m.name for m in self.models) or 'none'}",
            )
        return found

    @property
    def fingerprint(self) -> str:
        """sha256 over names, columns, windows, policies and learner code: the same declaration gives the same."""
        said = {
            "name": self.name,
            "events": [[e.topic, [[c.name, c.type.__name__, c.optional] for c in e.columns.values()]] for e in self.events],
            "views": [
                [v.name, v.key, [[f.name, f.spelled()] for f in v.features], [d.name for d in v.derived]]
                for h in self.topology.hops
                for v in h.views
            ],
            "models": [m.spelled() for m in self.models],
        }
        return hashlib.sha256(msgspec.json.encode(said)).hexdigest()


def load(module: str) -> Project:
    """The `project` of a module ("penstock.examples.flights") or of a file ("fraud.py")."""
    if module.endswith(".py"):
        spec = importlib.util.spec_from_file_location(module.removesuffix(".py").replace("/", "_").lstrip("._"), module)
        if spec is None or spec.loader is None:
            raise DefinitionError(f"{module} cannot be read", "give the path of a Python file with `project = ps.Project(...)`")
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = loaded
        try:
            spec.loader.exec_module(loaded)
        except FileNotFoundError as error:
            raise DefinitionError(
                f"no such file: {module}", "give the path of a Python file with `project = ps.Project(...)`"
            ) from error
    else:
        try:
            loaded = importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise DefinitionError(
                f"{error}", "name an importable module (or a .py file) with `project = ps.Project(...)`"
            ) from error
    found = getattr(loaded, "project", None)
    if not isinstance(found, Project):
        raise DefinitionError(f"{module} has no `project`", 'end the file with: project = ps.Project("name", [model])')
    return found
