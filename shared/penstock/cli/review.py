"""flag and review: people say that an answer is wrong, reviewers decide, and how far they agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import PenstockError
from . import broker, screen
from .options import command, project_settings, topics_of

if TYPE_CHECKING:
    from ..label import Label, Truth
    from ..log import Log, Readable
    from ..records import Prediction as Answer
    from ..records import Queued
    from ..reviewing.feedback import Kind
    from ..reviewing.panel import Panel
    from ..settings import Settings
    from ..statistics.agreement import Agreement
    from ..topics import Topics

__all__ = ["app", "flag"]

app = typer.Typer(help="Answers that wait for people's judgement.", no_args_is_help=True)

SAYS = "yes|no|NUMBER|CLASS"

Prediction = Annotated[str, typer.Argument(metavar="PREDICTION_ID", help="The id of the event that was answered.")]
ModelName = Annotated[str, typer.Option("--model", help="The model; needed where several are reviewed.", show_default=False)]
By = Annotated[str, typer.Option("--by", metavar="NAME", help="Who says so; default: your user name.", show_default=False)]
Why = Annotated[str, typer.Option("--why", help="The reason, for those who ask.", show_default=False)]


@app.callback()
def _group() -> None:
    """What waits for reviewers, what they decide, and how far they agree."""


def flag(
    prediction: Prediction,
    model: ModelName = "",
    says: Annotated[str, typer.Option("--says", metavar=SAYS, help="What would be right.", show_default=False)] = "",
    why: Why = "",
    by: By = "",
) -> None:
    """Say that an answer is wrong, so that reviewers look at it.

    A flag is no label: what reviewers decide becomes one. See what waits:  penstock review list
    """
    from ..duration import spoken
    from .explain import answer_to

    settings, topics, name = _asked(model)
    truth = _word(topics, name, says) if says else None

    async def work(log: Log) -> bool:
        return await answer_to(log, topics, name, prediction) is not None

    known = broker.use(settings, work, f"looking for {prediction}")
    words = "flagged" if known else "is no answer that is known yet; the flag is kept"
    _said(settings, topics, "flags", name, prediction, truth, why, by, words, {"known": known})
    if known:
        screen.note("reviewers see it in:  penstock review list")
        return
    horizon = spoken(topics.project.model(name).label.within)
    screen.note(
        f"no answer {prediction} is on {topics.predictions(name)}: monitoring keeps the flag until one comes, {horizon} of "
        f"stream time at most (the horizon of its label); what came of it then:  penstock review show {prediction}"
    )


@command(app, name="list", kept=True)
def listed(
    model: Annotated[str, typer.Option("--model", help="Of this model only.", show_default=False)] = "",
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Only what this person may decide.", show_default=False)] = "",
    newest: Annotated[int, typer.Option("--first", min=1, help="At most so many, the most useful.")] = 20,
) -> None:
    """Show which answers wait, the most useful first."""
    settings, topics, name = _asked(model, many=True)
    panel = _panel(settings, topics)
    found = panel.waiting(name, by)[:newest]
    table = [(q.prediction, q.model, _answered(topics, q), _why_asked(q), f"{q.have} of {q.want}", *q.notes[:1]) for q in found]
    lines = screen.rows([("prediction", "model", "answer", "because", "decided", "said"), *(_six(row) for row in table)])
    screen.answer(found, lines if table else [])
    if not table:
        screen.note("nothing waits for reviewers")


@command(app, kept=True)
def show(prediction: Prediction, model: ModelName = "") -> None:
    """Show an answer that waits, or what came of it."""
    import msgspec

    from ..reviewing.word import spelled
    from .explain import answer_known

    settings, topics, name = _asked(model)
    panel = _panel(settings, topics)

    async def work(log: Readable) -> Any:
        return await answer_known(log, settings, topics, name, prediction)

    answer = broker.read(settings, topics, work, f"looking for {prediction}")
    queued, ended = panel.find(name, prediction), panel.heard(name, prediction)
    ended = [end for end in ended if queued is None or end.state != "contradicted"]  # whoever is asked next judges for himself
    if answer is None and queued is None and not ended:
        raise PenstockError(f"{name} has no answer {prediction!r} on its topic", "penstock review list")
    lines = []
    if answer is not None:
        lines = [
            f"{answer.id}  {answer.time:%Y-%m-%d %H:%M}  of {answer.key}  {_answered(topics, answer)} by version {answer.version}"
        ]
        lines += [f"  {given} {value}" for given, value in msgspec.json.decode(answer.inputs).items()]
    if queued is not None:
        lines += [f"waits: {_why_asked(queued)}, {queued.have} of {queued.want} have decided", *(f"  {n}" for n in queued.notes)]
    for end in ended:
        said = ", ".join(f"{who} {spelled(says)}" for who, says in zip(end.reviewers, end.words, strict=False))
        label = "" if end.decided is None else f" {spelled(end.decided)}"
        lines.append(f"{end.state}{label}  {said or ', '.join(end.reviewers)}  {end.reason}".rstrip())
    screen.answer({"answer": answer, "waits": queued, "ended": ended}, lines)


@command(app)
def decide(
    prediction: Prediction,
    says: Annotated[str, typer.Option("--says", metavar=SAYS, help="What is true.", show_default=False)],
    model: ModelName = "",
    why: Why = "",
    by: By = "",
) -> None:
    """Say what is true of an answer that waits: a label.

    Where two are asked on purpose, the label comes with the second; where these contradict each other, with a third: of numbers
    the median, of classes the one that two have named.
    """
    from getpass import getuser

    from ..reviewing.word import alike, spelled

    settings, topics, name = _asked(model)
    truth, who, panel = _word(topics, name, says), by or getuser(), _panel(settings, topics)
    queued = panel.find(name, prediction)
    if queued is None:
        ended = [end for end in panel.heard(name, prediction) if end.state == "labelled"]
        what = "was decided already" if ended else "does not wait for reviewers"
        fix = f"penstock review show {prediction} --model {name}" if ended else f"penstock flag {prediction} --model {name}"
        raise PenstockError(f"{prediction} {what}", fix)
    if who in queued.not_for:
        raise PenstockError(f"{who} has flagged or decided {prediction} already", "another person decides:  --by NAME")
    have, want = queued.have + 1, queued.want
    reviewing, earlier = topics.project.model(name).review, _earlier(settings, topics, queued) if have == want == 2 else None
    differ = earlier is not None and not alike(earlier, truth, reviewing.within if reviewing else 0.0)
    more = {"have": have, "want": want + differ}
    _said(settings, topics, "reviews", name, prediction, truth, why, who, f"decided: {spelled(truth)}", more)
    if differ:
        screen.note("2 of 2, and they differ: a third is asked")
    elif isinstance(truth, str) and have == want > 2:
        screen.note(f"{have} of {want}: the class that two have named is the label, else another reviewer is asked")
    elif want > 1:
        screen.note(f"{have} of {want}" + (", another reviewer is asked" if have < want else ", that decides it"))


@command(app, kept=True)
def agreement(
    model: Annotated[str, typer.Option("--model", help="Of this model only.", show_default=False)] = "",
) -> None:
    """Show how far reviewers agree, beyond chance.

    Of the answers that were given to two on purpose: Krippendorff's alpha (1: perfect, 0: as by chance) with its 95 % interval,
    of yes and no and classes by whether words are the same, of numbers by how far they are apart; and how reviews ended.
    """
    settings, topics, name = _asked(model, many=True)
    panel = _panel(settings, topics)
    names = [name] if name else [each.name for each in topics.reviewing]
    found = {each: panel.agreement(each) for each in names}
    value = {each: {"agreement": said, "ended": dict(panel.ends[each])} for each, said in found.items()}
    screen.answer(value, *([f"{each}: {_agreed(said)}", _ended(panel, each)] for each, said in found.items()))


def _agreed(said: Agreement) -> str:
    if said.alpha is None:
        return f"no alpha: {said.missing}"
    who = f"Krippendorff, {said.metric}, {said.reviewers} reviewers"
    same = f"the same on {said.observed:.0%} of {said.answers} answers that two decided"
    return f"alpha {said.alpha:.2f} ({said.low:.2f} to {said.high:.2f}; {who}), {same}"


def _ended(panel: Panel, model: str) -> str:
    ends = ", ".join(f"{number:,} {state}" for state, number in sorted(panel.ends[model].items()))
    return f"  {len(panel.waiting(model)):,} wait; ended: {ends or 'none yet'}"


def _why_asked(queued: Queued) -> str:
    if queued.have > 1:
        return "contradicted"
    if queued.flags:
        return "flagged" if queued.flags == 1 else f"flagged by {queued.flags}"
    return "inputs missing" if queued.unfamiliar else "uncertain"


def _six(row: tuple[str, ...]) -> tuple[str, ...]:
    return (*row, "")[:6]


def _answered(topics: Topics, said: Queued | Answer) -> str:
    """What was answered: a probability, a number, or a class with its probability."""
    if isinstance(said.answer, str):
        return f"{said.answer} {said.score:.3f}"
    number = topics.project.model(said.model).label.task == "regression"
    return f"{said.score:.6g}" if number else f"{said.score:.3f}"


def _word(topics: Topics, model: str, text: str) -> Truth:
    """What somebody typed, as the label of the model has it."""
    from ..errors import Refused
    from ..reviewing.word import asked, typed

    label: Label = topics.project.model(model).label
    try:
        return typed(label, text)
    except Refused as refused:
        raise typer.BadParameter(f"{refused}; type --says {asked(label)}", param_hint="--says") from None


def _asked(model: str, many: bool = False) -> tuple[Settings, Topics, str]:
    """The settings, the topics, and the model that is meant: the only one that is reviewed, where none is named (`many`: or none,
    for all)."""
    from ..mistake import nearest

    settings = project_settings()
    topics = topics_of(settings)
    names = [each.name for each in topics.reviewing]
    if not names:
        raise PenstockError(f"no model of {topics.prefix} is reviewed", "declare it: @ps.model(..., review=ps.review())")
    if model and model not in names:
        raise PenstockError(f"{topics.prefix} has no model {model} that is reviewed", nearest(model, names))
    if not model and len(names) > 1 and not many:
        raise PenstockError(f"which model? {', '.join(names)} are reviewed", f"--model {names[0]}")
    return settings, topics, model or ("" if many else names[0])


def _panel(settings: Settings, topics: Topics) -> Panel:
    from ..reviewing.panel import Panel

    async def work(log: Readable) -> Panel:
        broker.known(topics.queue, await log.describe())
        panel = Panel(topics)
        ends = await log.ends([topics.queue, topics.reviewed])
        while any(panel.at.get(place, 0) < end for place, end in ends.items()):
            await panel.watch(log)
        await panel.close()
        return panel

    return broker.read(settings, topics, work, f"reading {topics.queue}")


def _earlier(settings: Settings, topics: Topics, queued: Queued) -> Truth | None:
    """What the only one said who has decided so far; None where his word is not on the topic."""
    import msgspec

    from ..log import Partition, partition_of
    from ..records import Review

    async def work(log: Log) -> dict[str, Truth]:
        counts, key = await log.describe(), queued.prediction.encode()
        place = Partition(topics.reviews, partition_of(key, counts[broker.known(topics.reviews, counts)]))
        begins, ends = await log.begins([topics.reviews]), await log.ends([topics.reviews])
        said: dict[str, Truth] = {}
        async for found in broker.records(log, {place: begins[place]}, {place: ends[place]}):
            if found.key == key and found.value:
                review = msgspec.json.decode(found.value, type=Review)
                if review.model == queued.model and review.by in queued.not_for:
                    said.setdefault(review.by, review.word)
        return said

    said = broker.use(settings, work, f"reading {topics.reviews}")
    return next(iter(said.values())) if len(said) == 1 else None


def _said(
    settings: Settings, topics: Topics, kind: Kind, model: str, prediction: str, says: Truth | None, why: str, by: str,
    words: str, more: dict[str, Any],
) -> None:  # fmt: skip
    """Send what somebody says, as of the stream's time, and tell him so in `words`; `more`: what programs are told beside."""
    from getpass import getuser

    from ..errors import Refused
    from ..reviewing.feedback import Said, feedback
    from .alerts import stream_now

    said = Said(prediction, says, why, by or getuser())

    async def work(log: Log) -> Any:
        topic = topics.flags if kind == "flags" else topics.reviews
        broker.known(topic, await log.describe())
        record = feedback(topics, kind, model, said, await stream_now(log, topics))
        await log.send([record])
        return record

    try:
        broker.use(settings, work, "writing what you say")
    except Refused as refused:
        raise PenstockError(str(refused), "penstock review --help") from None
    told = {"prediction": prediction, "model": model, "by": said.by, "says": says, **more}
    screen.answer(told, f"{prediction} {words}, by {said.by}")
