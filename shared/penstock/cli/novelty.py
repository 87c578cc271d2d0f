"""novelty: which inputs are new to the version that answers."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from ..log import Readable
from ..records import Statistic, Unseen
from . import broker, screen
from .options import project_settings, topics_of

__all__ = ["novelty"]

WINDOWS: Final = 7
"""Windows that are shown: a week, where they are days."""
INPUTS: Final = 3


def novelty(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Whose answers.", show_default=False)],
    windows: Annotated[int, typer.Option("--windows", min=1, help="At most so many, the newest.")] = WINDOWS,
) -> None:
    """Show which inputs are new to the version that answers.

    Of each window and version the share of novel answers (lying where fewer than one training row in 128 does) beside what the
    training rows make expect, the inputs that were outside their range most often, and of the newest window the oddest answers.
    """
    import msgspec

    settings = project_settings()
    topics = topics_of(settings)
    topics.project.model(model)

    async def work(log: Readable) -> list[Statistic]:
        topic = topics.statistics(model)
        broker.known(topic, await log.describe())
        return [msgspec.json.decode(found.value or b"", type=Statistic) async for found in broker.held(log, topic)]

    said = {
        one.id: one for one in broker.read(settings, topics, work, f"reading {topics.statistics(model)}")
    }  # a repeat says the same
    found = sorted((one for one in said.values() if one.novelty), key=lambda one: one.start)[-windows:]
    table: list[tuple[str, ...]] = [("window", "version", "answers", "novel", "expected", "most often outside")]
    table += [_line(one, version, unseen) for one in found for version, unseen in one.novelty.items()]
    told = [{"start": one.start, "end": one.end, "novelty": one.novelty} for one in found]
    screen.answer({"windows": told}, screen.rows(table) if found else [])
    if not found:
        screen.note(
            f"nothing is counted of {model} yet: declare ps.novelty() among its monitors; it needs a version fitted since"
        )
        return
    for version, unseen in found[-1].novelty.items():
        for odd in unseen.oddest:
            values = ", ".join(
                f"{name} {'missing' if value is None else f'{value:g}'}" for name, (value, _) in odd.inputs.items()
            )
            screen.note(f"  {odd.id} ({version}): {values}")


def _line(one: Statistic, version: str, unseen: Unseen) -> tuple[str, ...]:
    from ..statistics.novelty import novel

    expected = sum(unseen.expected)
    outside = sorted(unseen.outside.items(), key=lambda each: (-sum(each[1]), each[0]))[:INPUTS]
    return (
        f"{one.start:%Y-%m-%d %H:%M}",
        version,
        f"{unseen.answers:,}",
        f"{novel(unseen.levels) / max(unseen.answers, 1):.1%}",
        f"{novel(unseen.expected) / expected:.1%}" if expected else "-",
        ", ".join(f"{name} {sum(counts):,}" for name, counts in outside) or "-",
    )
