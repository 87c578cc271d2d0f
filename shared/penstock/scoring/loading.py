"""A model in a user's own process, as the services serve it.

    with ps.load_model("late@champion", project="flights.py", follow=True) as model:
        model.predict(frame)                     # float64 (rows,): the probability of True
        model.version, model.digest, model.inputs

The decisions come from the models topic where there is a broker, else from what a run in one process left beside its artefacts.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from penstock.artefact import Artefacts
from penstock.errors import PenstockError, Unreachable
from penstock.inputs import Floats, Matrix
from penstock.model import Model
from penstock.project import Project, load
from penstock.settings import Settings
from penstock.settings import load as load_settings
from penstock.topics import Topics

from .answers import Serving, answers, score
from .decisions import kept
from .given import matrix
from .scorers import Member
from .topic import Following, ModelsTopic
from .versions import Versions

__all__ = ["LoadedModel", "answered", "heard", "load_model"]


class LoadedModel:
    """A model, open. Safe to share between threads: a call is answered by one set of versions throughout."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._serving = versions.serving()
        self._following: Following | None = None
        self._refusal: PenstockError | None = None

    def __repr__(self) -> str:
        return f"<LoadedModel {self.name} version {self.version}>"

    @property
    def name(self) -> str:
        return self._versions.model.name

    @property
    def inputs(self) -> tuple[str, ...]:
        """What a row needs, in the order of the columns of an array."""
        return self._versions.model.inputs

    @property
    def classes(self) -> tuple[str, ...]:
        """Of a label that is one of several: what the columns of `predict` are."""
        return self._versions.model.label.classes

    @property
    def version(self) -> str:
        """Of the batch learner's model where two are mixed."""
        return self._lead.version

    @property
    def digest(self) -> str:
        """sha256 of its artefact."""
        return self._lead.digest

    @property
    def _lead(self) -> Member:
        return next(iter(self._serving.members.values()))

    def predict(self, rows: Any) -> Floats:
        """The probability of True for each row, or the number, float64 (rows,); of classes the probability of each, (rows,
        classes) in the order of `classes`. To the last bit what the services answer; NaN where no version gives an answer, with a
        RuntimeWarning in words where a function around the model takes no such row.

        `rows`: a frame, a pyarrow table, mappings by name, or an array (rows, inputs); see `penstock.scoring.given`.

        Raises DefinitionError where an input is not there, Refused where a value is no number.
        """
        serving, model = self._serving, self._versions.model
        X = matrix(rows, model.inputs, repr(model.scores))  # noqa: N806
        return answered(model, X, serving)

    def hear(self, records: Sequence[tuple[bytes | None, bytes | None]]) -> None:
        """Take records of the models topic; calls of `predict` that begin after it are answered by whom they put in charge. A
        version that cannot be opened never takes over."""
        changed = [self._versions.hear(key, value) for key, value in records]
        if any(changed) or isinstance(self._refusal, Unreachable):  # a file that was not there may have come
            try:
                self._serving, self._refusal = self._versions.serving(), None
            except PenstockError as error:
                self._refusal = error

    @property
    def problem(self) -> str:
        """Why the newest decision is not in force, or why none can be heard; empty while all is well."""
        trouble = self._following.trouble if self._following is not None else ""
        return f"{self._refusal}; {self.version} goes on" if self._refusal is not None else trouble

    def follow(self, topic: ModelsTopic, position: int) -> None:
        """Go on reading the topic from a position on, in a thread, until `close`."""
        self._following = Following(topic, position, self.hear)

    def close(self) -> None:
        """Stop following, and end the processes of functions."""
        self._versions.functions.close()
        if self._following is not None:
            self._following.close()
            self._following = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def answered(model: Model, X: Matrix, serving: Serving) -> Floats:  # noqa: N803
    """The scores that `answers.score` gives, NaN where no version gives one."""
    scored = score(model.name, X, [""] * len(X), serving)
    if why := scored.unanswered:
        row = min(why)
        warnings.warn(f"{len(why)} of {len(X)} rows have no score: row {row}: {why[row]}", RuntimeWarning, stacklevel=3)
    return answers(model.label, scored)


def load_model(
    name: str,
    *,
    project: Project | str | None = None,
    data: Path | str | None = None,
    follow: bool = False,
) -> LoadedModel:
    """Open a model of a project in this process: the same bytes, verified, and the same scores as by the services.

    `name` is `model` (who answers now), `model@alias` or `model@version`. `project` is one, a module or a file (default
    PENSTOCK_PROJECT); `data` is the folder that has its models (default PENSTOCK_DATA). Decisions come from the models topic
    where KAFKA_BOOTSTRAP_SERVERS is set or `penstock up` runs in that folder. With `follow=True` a thread goes on reading that
    topic until `close()`, and versions are swapped between two calls of `predict`.

    Raises PenstockError where there is no such model or version, or its artefact is not what was registered; Unreachable where
    neither a broker nor the decisions of a run in one process are there.
    """
    settings = load_settings(**({} if data is None else {"data": Path(data)}))
    found = project if isinstance(project, Project) else load(project or settings.project)
    versions, topic, position = heard(name, found, settings)
    if follow and topic is None:
        raise Unreachable("there is no broker to follow: the run that left these models is over", "follow=False")
    model = LoadedModel(versions)
    if follow and topic is not None:
        model.follow(topic, position)
    return model


def heard(name: str, project: Project, settings: Settings) -> tuple[Versions, ModelsTopic | None, int]:
    """What a reference means by all decisions there are now; where they came from, and the position after them."""
    artefacts = Artefacts.of(settings)
    versions, said, models = Versions(name, project, artefacts), Topics(project).models, artefacts.root
    topic = ModelsTopic.found(settings, said)
    table, position = topic.now() if topic is not None else (kept(models, said), 0)
    if table is None:
        raise Unreachable(
            f"nobody to ask what is in charge of {name}: there is no broker, and no run in one process left it in {models}",
            "export KAFKA_BOOTSTRAP_SERVERS=host:port   or   penstock up --detach",
        )
    for key, value in table.items():
        versions.hear(key, value)
    return versions, topic, position
