"""How it ran: what the statistics and archived answers say of load and speed."""

from __future__ import annotations

from ..statistics.quality import added
from .records import Records
from .section import Block, Facts, Missing, Note, Section, Tone

__all__ = ["running"]


def running(records: Records) -> Section:
    """Answers, outcomes, what could not be read, latency, fits."""
    title, counts = "How it ran", dict[str, int]()
    for statistic in records.statistics:
        counts = added(counts, statistic.counts)
    days = max((records.until - records.start).total_seconds() / 86_400, 1e-9)
    answers = counts.get("predictions", 0)
    pairs = [("answers", f"{answers:,}"), ("a day", f"{answers / days:,.0f}")]
    pairs += [("labels that came", f"{counts.get('outcomes', 0):,}"), ("windows", f"{len(records.statistics):,}")]
    bad = counts.get("unread", 0)
    pairs += [("inputs unread", f"{bad:,}")] if bad else []
    pairs += [("unexplained", f"{counts['unexplained']:,}")] if counts.get("unexplained") else []
    fits = [run.seconds for run in records.runs if run.kind == "full" and run.seconds and records.inside(run.at)]
    pairs += [("longest fit", f"{max(fits):.3g} s")] if fits else []
    blocks: list[Block] = []
    latency = records.answered.latency if records.answered else {}
    if latency:
        pairs += [
            (f"{float(q):.0%} of answers within" if q != "0.5" else "half of answers within", _ms(s)) for q, s in latency.items()
        ]
    else:
        why = "nothing was timed" if records.answered else (records.unanswered or "no archived answers")
        blocks.append(Missing(f"Latency is not known here: {why}."))
    blocks.insert(0, Facts(pairs))
    blocks.insert(1, Note("Labels count here when they came in the windows of the period, whenever their answers were given."))
    blocks.append(Missing("Lag, memory, CPU and dead letters of now are with each service:", "/metrics   or   penstock status"))
    tone: Tone = "warn" if bad else ""
    said = f"{answers:,} answers in {len(records.statistics):,} windows, {answers / days:,.0f} a day" + (
        f"; the inputs of {bad:,} could not be read." if bad else "."
    )
    return Section("running", title, said, blocks, tone)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"
