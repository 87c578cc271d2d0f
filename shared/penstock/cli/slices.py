"""slices: where a model fails."""

from __future__ import annotations

from typing import Annotated

import typer

from . import screen
from .options import model_of, moment, project_settings, topics_of

__all__ = ["slices"]


def slices(
    model: Annotated[str, typer.Argument(help="The model.", show_default=False)],
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Scored events from then on, such as 2026-02-01T00:00Z.", show_default=False),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Scored events before then.", show_default=False)
    ] = None,
    surprising: Annotated[
        bool, typer.Option("--surprising", help="Count loss only as far as the scores did not make it expect.")
    ] = False,
    material: Annotated[
        float, typer.Option("--material", min=0.0, help="The least excess that is named, as a part of the rest's loss.")
    ] = 0.1,
) -> None:
    """Show the slices of inputs and segments where a model fails.

    An error model looks for them in one half of the archived outcomes, and judges them on the other: a slice is named if its loss
    there is surely above that of the rest (95 % for all that were tried at once), and materially. The most harmful comes first:
    rows times excess. Loss is log loss of yes and no, of classes whether the answer is wrong, of numbers the size of the error or
    the pinball loss. "expected" is the loss that the model's own scores made expect: far below the loss, it was wrong without
    knowing (--surprising looks for that alone). That there is none is a result, too.
    """
    from ..frames.slices import archived
    from ..frames.slices import slices as found_in
    from ..offline import Tables
    from ..pages.words import loss_said

    settings = project_settings()
    topics = topics_of(settings)
    of = model_of(topics, model)
    span, segments = (moment(start, "--from"), moment(end, "--until")), [segment.name for segment in of.segments]
    frame = archived(Tables(settings.offline), topics.outcomes(model), of.label, of.inputs, *span, segments)
    found = found_in(frame, surprising=surprising, material=material, quantile=of.label.quantile)
    counted = found.loss_is == "zero_one_loss"  # its mean is a share
    table = [
        ("where", "rows", "share", "wrong answers" if counted else "loss", "rest", "excess", "expected"),
        *(
            (
                each.where,
                f"{each.rows:,}",
                f"{each.share:.1%}",
                f"{each.loss:.4f}",
                f"{each.rest:.4f}",
                f"{each.excess:.4f} ({each.low:.4f} to {each.high:.4f})",
                "–" if each.expected is None else f"{each.expected:.4f}",
            )
            for each in found.slices
        ),
    ]
    screen.answer(found, f"  {found.why}", screen.rows(table) if found.slices else [])
    loss = "" if found.loss is None else f", {'' if counted else 'mean '}{loss_said(found.loss_is)} {found.loss:.4f}"
    screen.note(f"  {screen.count(found.rows, 'labelled answer')} of {model}{loss}")
