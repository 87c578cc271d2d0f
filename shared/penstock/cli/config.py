"""config, version, check, topology: what is set, what is installed, what a project declares."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ..errors import SettingError
from . import screen
from .options import InJson, ProjectName, chosen, project_of, settings_of, topics_of

if TYPE_CHECKING:
    from ..topics import Topics

__all__ = ["app", "check", "mermaid", "picture", "settings_found", "topology", "version"]

app = typer.Typer(help="The settings in force.", no_args_is_help=True, rich_markup_mode=None)


class Found(NamedTuple):
    """One setting: its variable, its value, where that came from, its default, its meaning, what is wrong with it."""

    variable: str
    value: Any
    source: str
    default: Any
    meaning: str
    wrong: str


@app.callback()
def _group() -> None:
    """The settings in force."""


@app.command()
def show(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="A table of all settings and their defaults, as in the README.")
    ] = False,
    json: InJson = False,
) -> None:
    """Every setting: its value and where it came from. Secrets are masked."""
    found = settings_found()
    wrong = [f for f in found if f.wrong]
    if markdown:
        screen.say("| variable | default | meaning |\n| --- | --- | --- |")
        for f in found:
            screen.say(f"| `{f.variable}` | {f'`{f.default}`' if f.default != '' else 'empty'} | {f.meaning} |")
        return
    if json:
        screen.answer({"settings": [f._asdict() for f in found]})
    else:
        for line in screen.rows(
            [(f.variable, str(f.value) if str(f.value) else "(empty)", f.source, f.wrong and f"WRONG: {f.wrong}") for f in found]
        ):
            screen.say(line)
    if wrong:
        names = ", ".join(f.variable for f in wrong)
        raise SettingError(
            f"{screen.count(len(wrong), 'setting')} cannot be used: {names}",
            "correct the .env file" if wrong[0].source == ".env" else f"export {wrong[0].variable}=...   or unset it",
        )


def settings_found() -> list[Found]:
    """All settings with their sources, the wrong ones too. The environment goes before `.env`, that before defaults."""
    from dotenv import dotenv_values
    from pydantic import SecretStr, ValidationError

    from ..settings import Settings

    problems: dict[str, str] = {}
    given: dict[str, Any] = {"project": chosen.project} if chosen.project else {}
    try:
        values = Settings(**given).model_dump()
    except ValidationError as error:
        values = {}
        problems = {str(e["loc"][0]).lower(): e["msg"].lower() for e in error.errors()}
    environment = {name.lower(): (name, value) for name, value in os.environ.items()}
    file = {name.lower(): (name, value) for name, value in dotenv_values(".env").items()}
    found = []
    for name, field in Settings.model_fields.items():
        choices = getattr(field.validation_alias, "choices", [f"PENSTOCK_{name.upper()}"])
        variable, source, raw = str(choices[0]), "default", None
        for place, label in ((environment, "environment"), (file, ".env")):
            hit = next((place[str(c).lower()] for c in choices if str(c).lower() in place), None)
            if hit is not None:
                variable, raw, source = hit[0], hit[1], label
                break
        if name == "project" and chosen.project:
            raw, source = chosen.project, "--project"
        secret = isinstance(field.default, SecretStr)
        default = field.default.get_secret_value() if secret else field.default
        value = values.get(name, raw if raw is not None else default)
        plain = value.get_secret_value() if isinstance(value, SecretStr) else value
        wrong = next((problems[str(c).lower()] for c in (name, *choices) if str(c).lower() in problems), "")
        found.append(
            Found(
                variable,
                _masked(str(plain)) if secret else _plain(plain),
                source,
                _plain(default),
                " ".join((field.description or "").split()),
                wrong,
            )
        )
    return found


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | bool) or value is None else str(value)


def _masked(url: str) -> str:
    """A URL without its password; anything else that is secret, not at all."""
    from .processes import screen_url

    return screen_url(url) if "://" in url else "**********" if url else ""


def version(json: InJson = False) -> None:
    """Show the version of Penstock and of what it runs on."""
    import platform
    from importlib import metadata

    names = ("aiokafka", "redis", "numpy", "onnxruntime", "river", "scikit-learn")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    own, python, system = (
        metadata.version("penstock"),
        platform.python_version(),
        f"{platform.system()} {platform.machine()}",
    )
    if json:
        screen.answer({"penstock": own, "python": python, "system": system, "packages": found})
        return
    screen.say(f"penstock {own}   python {python}   {system}")
    for line in screen.rows(list(found.items())):
        screen.say(line)


def check(project: ProjectName = None, json: InJson = False) -> None:
    """Check a project file, and try its derived features.

    Every mistake is told at once, with its line. Derived features must mean the same for one row and for many. A warning is
    about what is allowed and will hardly do what was meant, such as a rollout that is over before labels come.
    """
    from ..mistake import told
    from ..probe import learners, probe
    from ..trap import traps

    settings = settings_of(project)
    declared = project_of(settings)
    topics = topics_of(settings)
    made, wrong = learners(declared)
    wrong += probe(declared)
    warnings = [trap for model in declared.models for trap in traps(model, made.get(model.name))]
    views = [view for hop in declared.topology.hops for view in hop.views]
    if json:
        screen.answer(
            {
                "project": declared.name,
                "fingerprint": declared.fingerprint,
                "events": [e.topic for e in declared.events],
                "views": {v.name: v.columns for v in views},
                "models": {m.name: m.inputs for m in declared.models},
                "topics": [t.name for t in topics.all()],
                "problems": [str(mistake) for mistake in wrong],
                "warnings": warnings,
            }
        )
    else:
        screen.say(f"project {declared.name}   fingerprint {declared.fingerprint[:16]}")
        table = [
            (
                f"event {e!r}",
                f"topic {e.topic}, key {e.key.name}, id {e.id.name if e.id else 'none'}, time {e.time.name}",
            )
            for e in declared.events
        ]
        table += [(f"view {v.name}", f"by {v.key}: {len(v.features)} windows, {len(v.derived)} derived") for v in views]
        table += [
            (
                f"model {m.name}",
                f"scores {m.scores!r} from {len(m.inputs)} inputs, label {m.label.column!r} within {_spoken(m.label.within)}",
            )
            for m in declared.models
        ]
        for line in screen.rows(table):
            screen.say(line)
        for line in picture(topics)[:1]:
            screen.say(line)
        for warning in warnings:
            screen.say(f"{screen.paint('warning', 'yellow')}  {warning}")
    if wrong:
        raise told(wrong)
    if not json:
        derived = screen.count(sum(len(v.derived) for v in views), "derived feature")
        screen.say(f"ok: {derived} checked on single rows and on arrays")


def _spoken(length: int) -> str:
    from ..duration import spoken

    return spoken(length)


def topology(
    as_mermaid: Annotated[bool, typer.Option("--mermaid", help="A picture that GitHub and others draw.")] = False,
    project: ProjectName = None,
    json: InJson = False,
) -> None:
    """Draw services and topics: who writes what, who reads it."""
    topics = topics_of(settings_of(project))
    if json:
        screen.answer({"topics": [{"topic": c.topic.name, "writes": c.writes, "reads": c.reads} for c in topics.contracts()]})
        return
    for line in mermaid(topics) if as_mermaid else picture(topics):
        screen.say(line)


def picture(topics: Topics) -> list[str]:
    """The topology as text: the way of events through the hops, then topics in the order in which data flows."""
    hops = [hop.key for hop in topics.project.topology.hops]
    lines = [f"events pass, where they have such a key:  {' -> '.join(hops) or 'no hop'}", ""]
    table = [("written by", "", "topic", "", "read by")]
    for contract in topics.contracts():
        if contract.writes != ("any",):
            table.append((", ".join(contract.writes), "->", contract.topic.name, "->", ", ".join(contract.reads)))
    lines += screen.rows(table)
    return [*lines, "", "what cannot be taken goes to <topic>.dlq, with the cause:  penstock dlq list"]


def mermaid(topics: Topics) -> list[str]:
    """The topology as a Mermaid flow chart: services are boxes, topics are pipes."""
    contracts = [c for c in topics.contracts() if c.writes != ("any",)]
    services = dict.fromkeys(name for c in contracts for name in (*c.writes, *c.reads))
    lines = ["flowchart LR"]
    lines += [f"  {_node(name)}({name})" if name == "you" else f"  {_node(name)}[{name.replace('_', ' ')}]" for name in services]
    for group in _grouped(contracts):
        names = [c.topic.name for c in group]
        node = _node("topic_" + names[0])
        lines.append(f'  {node}[("{"<br/>".join(names)}")]')
        lines += [f"  {_node(writer)} --> {node}" for writer in group[0].writes]
        lines += [f"  {node} --> {_node(reader)}" for reader in group[0].reads]
    return lines


def _grouped(contracts: Sequence[Any]) -> list[list[Any]]:
    """Topics with the same writers and readers share a node, or nobody could read the picture."""
    groups: dict[Any, list[Any]] = {}
    for contract in contracts:
        groups.setdefault((contract.writes, contract.reads), []).append(contract)
    return list(groups.values())


def _node(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
