"""explain: which inputs made an answer what it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..errors import PenstockError
from . import broker, screen
from .explaining import moment_said, number_said
from .options import chosen, model_of, project_settings, topics_of

if TYPE_CHECKING:
    from ..artefact import Artefacts
    from ..contributions.version import Explanation
    from ..log import Readable
    from ..records import Candidate, Prediction
    from ..scoring.around import Plan
    from ..settings import Settings
    from ..topics import Topics

__all__ = ["answer_known", "answer_to", "explain"]

SHOWN: Final = 20
"""Inputs on the screen; --json has all."""
BAR: Final = 20
"""Characters of the longest bar."""
_UNIT: Final = {"number": "answer"}
"""What the sum of contributions comes to, by scale; else a probability."""
NEAR: Final = 1e-4
"""Of a probability (of a number: of its size): where an explanation is that far from the answer, it explains another model."""


def explain(
    prediction: Annotated[str, typer.Argument(metavar="PREDICTION_ID", help="The id of the event that was answered.")],
    model: Annotated[str | None, typer.Option("--model", help="Of this model only.", show_default=False)] = None,
) -> None:
    """Show which inputs made an answer what it is.

    Contributions (Shapley values) of the versions that counted in it, from the inputs as recorded: exact for linear models and
    trees, else estimated, with a standard error. On the scale of log-odds or of probability, whichever adds up for the model; of
    a number in its unit. Of several classes the one that was answered is explained: its probability, or its log-ratio (the
    logarithm of its probability over the geometric mean of all).
    The answer is looked for on the predictions topic, then in the offline tables.
    """
    from ..artefact import Artefacts
    from ..scoring.around import Plan

    settings = project_settings()
    topics = topics_of(settings)
    names = [model_of(topics, model).name] if model is not None else [each.name for each in topics.project.models]

    async def work(log: Readable) -> list[tuple[Prediction, dict[str, Candidate]]]:
        found = [await answer_known(log, settings, topics, name, prediction) for name in names]
        return [(each, await _versions(log, topics, each)) for each in found if each is not None]

    answers = broker.read(settings, topics, work, f"looking for {prediction}")
    if not answers:
        raise PenstockError(
            f"no answer to {prediction!r} on the predictions topics of {', '.join(names) or 'no model'}, nor in tables",
            "give the id of an event that was scored, as in its record or in the answer over HTTP",
        )
    artefacts = Artefacts(settings.data / "models")
    plans = {model.name: Plan.of(model) for model in topics.project.models}
    shown = [(answer, *_explained(artefacts, answer, versions, plans[answer.model])) for answer, versions in answers]
    value = [
        {"prediction": answer, "explanations": explanations, "unexplained": unexplained}
        for answer, explanations, unexplained in shown
    ]
    screen.answer({"answers": value}, *(_page(*each) for each in shown))


async def answer_known(log: Readable, settings: Settings, topics: Topics, model: str, id_: str) -> Prediction | None:
    """The answer as its topic has it, else as the offline tables do: these keep its columns, not its record."""
    kept = chosen.tables and topics.predictions(model) not in await log.describe()
    return (None if kept else await answer_to(log, topics, model, id_)) or _archived(settings, topics, model, id_)


async def answer_to(log: Readable, topics: Topics, model: str, id_: str) -> Prediction | None:
    """The first record of the answer: a repeat of it does not count."""
    import msgspec

    from ..log import Partition, partition_of
    from ..records import Prediction

    topic, counts = topics.predictions(model), await log.describe()
    place = Partition(topic, partition_of(id_.encode(), counts[broker.known(topic, counts)]))
    begins, ends = await log.begins([topic]), await log.ends([topic])
    async for found in broker.records(log, {place: begins[place]}, {place: ends[place]}):
        if found.key == id_.encode():
            return msgspec.json.decode(found.value or b"", type=Prediction)
    return None


def _archived(settings: Settings, topics: Topics, model: str, id_: str) -> Prediction | None:
    """The answer as the offline tables keep it."""
    import msgspec
    import pyarrow.compute as pc

    from ..offline import Tables
    from ..records import Prediction

    tables, name = Tables(settings.offline), topics.predictions(model)
    if name not in tables.names():
        return None
    rows = tables.table(name).arrow(None, pc.field("id") == id_).sort_by([("offset", "ascending")]).to_pylist()
    if not rows:
        return None
    row = rows[0]
    inputs = {each: row.get(each) for each in topics.project.model(model).inputs}
    given: dict[str, Any] = {"model": model, "key": "", "bucket": 0, "latency": 0.0, "trace": "", "digest": ""}
    given |= {field: value for field, value in row.items() if field in Prediction.__struct_fields__ and value is not None}
    for field in ("scores", "weights", *(each for each in ("probabilities", "segments") if each in given)):
        given[field] = msgspec.json.decode(given.get(field) or "{}")
    return msgspec.convert(given | {"inputs": msgspec.Raw(msgspec.json.encode(inputs))}, Prediction)


async def _versions(log: Readable, topics: Topics, answer: Prediction) -> dict[str, Candidate]:
    """The versions that counted in an answer, as they were registered."""
    import msgspec

    from ..records import Decision

    found: dict[str, Candidate] = {}
    async for record in broker.held(log, topics.models):
        if record.value is None:
            continue
        try:
            decision = msgspec.json.decode(record.value, type=Decision)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue  # nobody follows it
        if decision.model == answer.model and decision.version in answer.weights and decision.candidate is not None:
            found[decision.version] = decision.candidate
    return found


def _explained(
    artefacts: Artefacts, answer: Prediction, versions: dict[str, Candidate], plan: Plan
) -> tuple[list[Explanation], dict[str, str]]:
    """Each version that counted, the weightiest first; and why of those that cannot be explained."""
    import msgspec

    from ..contributions.version import explained, explainer_of

    inputs = msgspec.json.decode(answer.inputs, type=dict[str, float | bool | None])
    explanations, unexplained = [], dict[str, str]()
    if not answer.weights:
        unexplained[answer.version] = "no version was in charge yet: it is no model's answer"
    for version in sorted(answer.weights, key=lambda each: -answer.weights[each]):
        candidate = versions.get(version)
        if candidate is None:
            unexplained[version] = "the models topic no longer has its registration"
        elif version == answer.version and answer.digest and candidate.artefact.sha256 != answer.digest:
            unexplained[version] = f"the file that answered was {answer.digest[:12]}, not {candidate.artefact.sha256[:12]}"
        else:
            row = [None if (value := inputs.get(name)) is None else float(value) for name in candidate.inputs]
            try:
                named = answer.answer or ""
                explainer = explainer_of(artefacts, candidate, plan=plan)
                explanations.append(explained(explainer, version, candidate.inputs, row, candidate.classes, named))
            except PenstockError as error:
                unexplained[version] = str(error)
    return explanations, unexplained


def _page(answer: Prediction, explanations: Sequence[Explanation], unexplained: dict[str, str]) -> Iterator[str]:
    weights = ", ".join(f"{version} x {weight:.3g}" for version, weight in answer.weights.items()) or "nobody"
    yield f"{screen.paint(answer.id, 'bold')} of {answer.key or 'nobody'} at {moment_said(answer.time)}"
    named = f"{answer.answer}, with " if answer.answer else ""
    yield f"  {answer.model} answered {named}{answer.score:.6f}, as {answer.variant}: {weights}"
    for each in explanations:
        yield ""
        yield from _version(each, answer.scores.get(each.version))
    for version, why in unexplained.items():
        yield ""
        yield screen.paint(f"  {version} is not explained: {why}", "yellow")


def _version(said: Explanation, score: float | None) -> Iterator[str]:
    of = f", of {said.answer!r}" if said.answer else ""
    exact = "exact" if said.kind != "permutation" else "estimated"
    yield f"  {screen.paint(said.version, 'bold')} ({said.kind}, {exact}){of}, in {said.scale}:"
    parts = said.contributions[:SHOWN]
    most = max((abs(part.contribution) for part in parts), default=0.0) or 1.0
    table = [("usually", "", f"{said.base:+.4f}", "")]
    for part in parts:
        bar = ("+" if part.contribution > 0 else "-") * round(BAR * abs(part.contribution) / most)
        error = f" ± {part.error:.4f}" if part.error else ""
        table.append((part.input, number_said(part.value), f"{part.contribution:+.4f}{error}", bar))
    rest = said.contributions[SHOWN:]
    if rest:
        table.append((screen.count(len(rest), "other"), "", f"{sum(part.contribution for part in rest):+.4f}", ""))
    table.append(("together", "", f"{said.total:+.4f}", f"{_UNIT.get(said.scale, 'probability')} {said.probability:.6f}"))
    yield from screen.rows(table)
    if score is not None and abs(score - said.probability) > NEAR * max(1.0, abs(score)):
        yield screen.paint(f"  it had answered {score:.6f}: what explains it now is not what answered then", "yellow")
