"""A project: everything reachable from its models, validated at once and fingerprinted. There is no registration step."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from .errors import DefinitionError
from .event import Event, event_of
from .expectation import spelled
from .feature import View, view_of
from .function import declared
from .mistake import mistake, nearest, stopped, together, told
from .model import Model
from .policy import Policy
from .topology import Topology

__all__ = ["Link", "Project", "load", "run"]

Link = Model | Callable[..., Mapping[str, Any]]
"""Of a chain: a model, or a function declared with `ps.function`."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,48}")
_CHAIN = re.compile(r"[A-Za-z0-9_\-]{1,100}")
_LAST_LINE = 'project = ps.Project("name", [model])'


class Project:
    """`ps.Project("payments", [fraud])`; `rows={Payment: [Card]}` asks for rows of events that no model scores.

    `chains={"checked": [prepare, fraud, verdict]}` has the gateway answer tensors (/v2) under a name of their own by a model with
    functions (`ps.function`) before and after it. Events need none: their features are `ps.derived`.

    DefinitionError lists every mistake, in words, before anything starts.
    """

    def __init__(
        self,
        name: str,
        models: Sequence[Model] = (),
        rows: Mapping[type, Sequence[type]] | None = None,
        chains: Mapping[str, Sequence[Link]] | None = None,
    ) -> None:
        if isinstance(models, Model):
            raise DefinitionError(f"{models.name} stands alone", f"give a list: ps.Project({name!r}, [{models.name}])")
        self.name, self.models = name, tuple(models)
        reads: dict[Event, dict[View, None]] = {}
        for model in models:
            if not isinstance(model, Model):
                fix = "decorate the function with @ps.model(...); rows without a model: ps.Project(name, rows={Payment: [Card]})"
                raise DefinitionError(f"{model!r} is not a model", fix)
            reads.setdefault(model.scores, {}).update(dict.fromkeys(model.views))
        for cls, views in (rows or {}).items():
            reads.setdefault(event_of(cls), {}).update(dict.fromkeys(map(view_of, views)))
        self.chains = {chain: tuple(links) for chain, links in (chains or {}).items()}
        with together():
            for chain, links in self.chains.items():
                self._see(chain, links)
            for model in models:
                _ = (model.before or model.after) and model.codes  # as it was loaded: a file may change later
            if not _NAME.fullmatch(name):
                mistake(f"{name!r} is not a project name", "topics begin with it: lower-case letters, digits, - and _")
            if not reads:
                mistake("nothing to do", "give a model, or rows={Event: [View]}")
            for twice in _repeated(model.name for model in models):
                mistake(f"two models are called {twice}", "rename one")
            self.topology = Topology(
                [(event, tuple(views)) for event, views in reads.items()], [model.label.event for model in models]
            )
            topics = [event.topic for event in self.events]
            for twice in _repeated(topics):
                mistake(f"two events share the topic {twice}", "give each its own")
            for topic in topics:
                if topic.startswith(f"{name}."):
                    mistake(f"topic {topic} begins with the project's name, which is reserved", "rename the topic or the project")

    def _see(self, chain: str, links: Sequence[Link]) -> None:
        """What is wrong with a chain."""
        if not _CHAIN.fullmatch(chain) or chain == "stats" or chain in [model.name for model in self.models]:
            mistake(f"{chain!r} is no name for a chain", "take letters, digits, _ and -, and no name of a model")
        if sum(isinstance(link, Model) for link in links) != 1:
            mistake(f"chain {chain} has not one model", "list functions before and after one model of the project")
        for link in links:
            if not isinstance(link, Model):
                declared(link)
                if "." in link.__qualname__:
                    mistake(
                        f"chain {chain}: {link.__qualname__} is not at the top of its file", "another process must find it there"
                    )
            elif link not in self.models:
                mistake(f"chain {chain}: {link.name} is no model of this project", f"list it: ps.Project(name, [{link.name}])")

    @property
    def events(self) -> tuple[Event, ...]:
        return self.topology.events

    def model(self, name: str) -> Model:
        found = next((m for m in self.models if m.name == name), None)
        if found is None:
            raise DefinitionError(f"no model {name!r} in project {self.name}", nearest(name, [m.name for m in self.models]))
        return found

    def under(self, model: Model, policy: Policy) -> Project:
        """The same project with this model alone, under another policy."""
        found = copy(self)
        found.models = (model.under(policy),)
        return found

    @property
    def fingerprint(self) -> str:
        """sha256 over names, columns, windows, policies and learner code: the same declaration gives the same."""
        said: dict[str, Any] = {
            "name": self.name,
            "events": [[e.topic, [[c.name, c.type.__name__, c.optional] for c in e.columns.values()]] for e in self.events],
            "views": [
                [v.name, v.key, [[f.name, f.spelled()] for f in v.features], [d.name for d in v.derived]]
                for h in self.topology.hops
                for v in h.views
            ],
            "models": [m.spelled() for m in self.models],
        }
        if expected := {event.topic: spelled(event) for event in self.events if event.expectations}:
            said["expectations"] = expected
        if self.chains:
            said["chains"] = {chain: [getattr(link, "__name__", repr(link)) for link in of] for chain, of in self.chains.items()}
        return hashlib.sha256(msgspec.json.encode(said)).hexdigest()


def _repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, times in Counter(names).items() if times > 1)


def load(module: str) -> Project:
    """The `project` of a module ("penstock.examples.flights") or of a file ("fraud.py").

    DefinitionError lists every mistake with its file and line.
    """
    if module.endswith(".py") and not Path(module).is_file():
        raise DefinitionError(f"no such file: {module}", f"give the path of a Python file with {_LAST_LINE}")
    with together() as mistakes:
        try:
            loaded = run(Path(module)) if module.endswith(".py") else importlib.import_module(module)
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
                raise DefinitionError(str(error), f"name an importable module (or a .py file) with {_LAST_LINE}") from error
            raise told([*mistakes, stopped(error)]) from error
        finally:  # what was made with stand-ins is not to be found by a later import
            wrong = {mistake.file for mistake in mistakes}
            for name in [name for name, made in sys.modules.items() if getattr(made, "__file__", None) in wrong]:
                del sys.modules[name]
    found = getattr(loaded, "project", None)
    if not isinstance(found, Project):
        raise DefinitionError(f"{module} has no `project`", f"end the file with: {_LAST_LINE}")
    return found


def run(file: Path) -> ModuleType:
    """Run a file as a module, named after its path."""
    spec = importlib.util.spec_from_file_location(str(file.with_suffix("")).replace("/", "_").lstrip("._"), file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    code = compile(file.read_bytes(), str(file), "exec", dont_inherit=True)  # the bytecode that is kept may be of a second ago
    exec(code, vars(module))
    return module
