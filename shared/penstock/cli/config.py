"""config, version, check, topology: what is set, what is installed, what a project declares."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ..errors import SettingError
from . import screen
from .options import chosen, command, project_of, project_settings, topics_of

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


@command(app)
def show(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="A table of all settings and their defaults, as in the README.")
    ] = False,
) -> None:
    """Every setting: its value and where it came from. Secrets are masked."""
    found = settings_found()
    if markdown:
        screen.say("| variable | default | meaning |\n| --- | --- | --- |")
        for f in found:
            screen.say(f"| `{f.variable}` | {f'`{f.default}`' if f.default != '' else 'empty'} | {f.meaning} |")
        return
    table = [(f.variable, str(f.value) or "(empty)", f.source, f.wrong and f"WRONG: {f.wrong}") for f in found]
    screen.answer({"settings": [f._asdict() for f in found]}, screen.rows(table))
    if wrong := [f for f in found if f.wrong]:
        names = ", ".join(f.variable for f in wrong)
        raise SettingError(
            f"{screen.count(len(wrong), 'setting')} cannot be used: {names}",
            "correct the .env file" if wrong[0].source == ".env" else f"export {wrong[0].variable}=...   or unset it",
        )


def settings_found() -> list[Found]:
    """All settings with their sources, the wrong ones too. The environment goes before `.env`, that before defaults."""
    from urllib.parse import urlsplit

    from dotenv import dotenv_values
    from pydantic import SecretStr, ValidationError

    from ..local.doctor import without_password
    from ..settings import Settings

    given: dict[str, str | None] = {"penstock_project": chosen.project} if chosen.project else {}
    places: dict[str, dict[str, str | None]] = {
        "--project": given,
        "environment": {name.lower(): value for name, value in os.environ.items()},
        ".env": {name.lower(): value for name, value in dotenv_values(".env").items()},
    }
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    try:
        values = Settings(**({"project": chosen.project} if chosen.project else {})).model_dump()  # type: ignore[arg-type]
    except ValidationError as error:
        problems = {str(e["loc"][0]).lower(): e["msg"].lower() for e in error.errors()}

    def plain(value: Any) -> Any:
        if isinstance(value, SecretStr):
            url = value.get_secret_value()
            if url.startswith(("http://", "https://")):  # of a webhook the path is the secret
                return f"{url.partition('://')[0]}://{urlsplit(url).hostname}/***"
            return without_password(url) if "://" in url else "*" * len(url)
        return value if isinstance(value, int | float) else str(value)

    found = []
    for name, field in Settings.model_fields.items():
        choices = [str(c) for c in getattr(field.validation_alias, "choices", [f"PENSTOCK_{name.upper()}"])]
        set_here = [(label, place[c.lower()]) for label, place in places.items() for c in choices if c.lower() in place]
        source, raw = set_here[0] if set_here else ("default", field.default)
        masked = isinstance(field.default, SecretStr) and isinstance(raw, str)
        value = plain(values.get(name, SecretStr(str(raw)) if masked else raw))
        wrong = next((problems[c.lower()] for c in (name, *choices) if c.lower() in problems), "")
        meaning = " ".join((field.description or "").split())
        found.append(Found(choices[0], value, source, plain(field.default), meaning, wrong))
    return found


def version() -> None:
    """Show the version of Penstock and of what it runs on."""
    import platform
    from importlib import metadata

    def installed(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "not installed"

    packages = {name: installed(name) for name in ("aiokafka", "redis", "numpy", "onnxruntime", "river", "scikit-learn")}
    own, python, system = installed("penstock"), platform.python_version(), f"{platform.system()} {platform.machine()}"
    screen.answer(
        {"penstock": own, "python": python, "system": system, "packages": packages},
        f"penstock {own}   python {python}   {system}",
        screen.rows(list(packages.items())),
    )


def check() -> None:
    """Check a project file, and try its derived features.

    Every mistake is told at once, with its line. Derived features must mean the same for one row and for many. A warning is
    about what is allowed and will hardly do what was meant, such as a rollout that is over before labels come.
    """
    from ..checking.probe import functions, learners, probe
    from ..checking.trap import traps
    from ..duration import spoken
    from ..mistake import told

    settings = project_settings()
    project, topics = project_of(settings), topics_of(settings)
    trying = asyncio.to_thread(learners, project)
    made, wrong = asyncio.run(screen.patiently(trying, "trying the models' functions, which import their libraries"))
    wrong += probe(project) + functions(project)
    warnings = [trap for model in project.models for trap in traps(model, made.get(model.name))]
    views = [view for hop in project.topology.hops for view in hop.views]
    derived = sum(len(v.derived) for v in views)
    table = [
        (f"event {e!r}", f"topic {e.topic}, key {e.key.name}, id {e.id.name if e.id else 'none'}, time {e.time.name}")
        for e in project.events
    ]
    table += [(f"view {v.name}", f"by {v.key}: {len(v.features)} windows, {len(v.derived)} derived") for v in views]
    for m in project.models:
        label = f"label {m.label.column!r} within {spoken(m.label.within)}"
        table.append((f"model {m.name}", f"scores {m.scores!r} from {len(m.inputs)} inputs, {label}"))
    screen.answer(
        {
            "project": project.name,
            "fingerprint": project.fingerprint,
            "events": [e.topic for e in project.events],
            "views": {v.name: v.columns for v in views},
            "models": {m.name: m.inputs for m in project.models},
            "topics": [t.name for t in topics.all()],
            "problems": [str(mistake) for mistake in wrong],
            "warnings": warnings,
        },
        f"project {project.name}   fingerprint {project.fingerprint[:16]}",
        screen.rows(table),
        _way(topics),
        [f"{screen.paint('warning', 'yellow')}  {warning}" for warning in warnings],
        [] if wrong else f"ok: {screen.count(derived, 'derived feature')} checked on single rows and on arrays",
    )
    if wrong:
        raise told(wrong)


def topology(
    as_mermaid: Annotated[bool, typer.Option("--mermaid", help="A picture that GitHub and others draw.")] = False,
) -> None:
    """Draw services and topics: who writes what, who reads it."""
    topics = topics_of(project_settings())
    facts = [{"topic": c.topic.name, "writes": c.writes, "reads": c.reads} for c in topics.contracts()]
    screen.answer({"topics": facts}, mermaid(topics) if as_mermaid else picture(topics))


def _way(topics: Topics) -> str:
    hops = [hop.key for hop in topics.project.topology.hops]
    return f"events pass, where they have such a key:  {' -> '.join(hops) or 'no hop'}"


def picture(topics: Topics) -> list[str]:
    """The topology as text: the way of events through the hops, then topics in the order in which data flows."""
    table = [("written by", "", "topic", "", "read by")]
    for c in topics.contracts():
        if c.writes != ("any",):
            table.append((", ".join(c.writes), "->", c.topic.name, "->", ", ".join(c.reads)))
    dead = "what cannot be taken goes to <topic>.dlq, with the cause:  penstock dlq list"
    return [_way(topics), "", *screen.rows(table), "", dead]


def mermaid(topics: Topics) -> list[str]:
    """The topology as a Mermaid flow chart: services are boxes, topics are pipes; topics with the same
    writers and readers share one, or nobody could read the picture."""
    groups: dict[Any, list[str]] = {}
    for c in topics.contracts():
        if c.writes != ("any",):
            groups.setdefault((c.writes, c.reads), []).append(c.topic.name)
    services = dict.fromkeys(name for writes, reads in groups for name in (*writes, *reads))
    lines = ["flowchart LR"]
    lines += [f"  {_node(name)}({name})" if name == "you" else f"  {_node(name)}[{name.replace('_', ' ')}]" for name in services]
    for (writes, reads), names in groups.items():
        node = _node("topic_" + names[0])
        lines.append(f'  {node}[("{"<br/>".join(names)}")]')
        lines += [f"  {_node(writer)} --> {node}" for writer in writes]
        lines += [f"  {node} --> {_node(reader)}" for reader in reads]
    return lines


def _node(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
