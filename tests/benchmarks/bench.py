"""`make bench`: every benchmark, one after another in a process of its own, as a table, as JSON and as a picture.

    make bench                          all
    make bench ARGS="rows reads"        some
    make bench ARGS="--quick"           small sizes: shows that all run, not how fast they are

A benchmark is a module with `run(quick)`, which yields its figures (`figure.Figure`). It has a deadline: what it had measured by
then is kept, and the rest is said to be missing. Results go to .penstock/bench/<time>.json and .svg.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

from penstock.local.process import end_group, last_words, launch

from .chart import drawn, shown
from .figure import Figure
from .machine import machine, state

__all__ = ["BENCHES", "Bench", "Report", "Result", "measured", "report", "written"]

ROOT: Final = Path(__file__).parents[2]
GRACE: Final = 20.0
"""Seconds for a benchmark that is over its time to end its servers."""


class Bench(NamedTuple):
    module: str
    deadline: float
    """Seconds; some five times what it takes on two quiet cores."""


BENCHES: Final[Mapping[str, Bench]] = {
    "rows": Bench("tests.benchmarks.bench_rows", 600),
    "windows": Bench("tests.benchmarks.bench_windows", 900),
    "reads": Bench("tests.benchmarks.bench_reads", 300),
    "serve": Bench("tests.benchmarks.bench_serve", 300),
    "rpc": Bench("tests.benchmarks.bench_rpc", 200),
    "attacks": Bench("tests.benchmarks.bench_attacks", 400),
    "gateway": Bench("tests.benchmarks.bench_gateway", 600),
    "predictions": Bench("tests.benchmarks.bench_predictions", 120),
    "memory": Bench("tests.benchmarks.bench_memory", 300),
    "labels": Bench("tests.benchmarks.bench_labels", 600),
    "reviews": Bench("tests.benchmarks.bench_reviews", 200),
    "frames": Bench("tests.benchmarks.bench_frames", 600),
    "tables": Bench("tests.benchmarks.bench_tables", 600),
    "backfill": Bench("tests.benchmarks.bench_backfill", 600),
    "profile": Bench("tests.benchmarks.bench_profile", 300),
    "drift": Bench("tests.benchmarks.bench_drift", 300),
    "log": Bench("tests.benchmarks.bench_log", 300),
}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a benchmark has found. `error`: why it is not all of it."""

    name: str
    command: str
    seconds: float
    before: dict[str, float]
    after: dict[str, float]
    figures: list[Figure]
    error: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    at: str
    quick: bool
    machine: dict[str, Any]
    results: list[Result]


def measured(name: str, bench: Bench, quick: bool, folder: Path) -> Result:
    """Run a benchmark in a process of its own, until its deadline."""
    figures, log, before = folder / f"{name}.jsonl", folder / f"{name}.log", state()
    figures.unlink(missing_ok=True)
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.benchmarks.bench", "--within", bench.module, "--into", str(figures)]
    began, error = time.perf_counter(), ""
    child = launch([*command, "--quick"] if quick else command, log=log, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        code = child.wait(bench.deadline)
        if code:
            error = f"ended with code {code}: {last_words(log.read_text(errors='replace'))} -> tail -50 {log}"
    except subprocess.TimeoutExpired:
        error = f"not done after {bench.deadline:.0f} s -> tail -50 {log}"
    finally:
        end_group(child.pid, GRACE)
    found = figures.read_bytes().splitlines() if figures.exists() else []
    return Result(
        name=name,
        command=f'make bench ARGS="{name}{" --quick" if quick else ""}"',
        seconds=round(time.perf_counter() - began, 1),
        before=before,
        after=state(),
        figures=[msgspec.json.decode(line, type=Figure) for line in found],
        error=error,
    )


def within(module: str, quick: bool, into: Path) -> None:
    """Run a benchmark in this process; each figure is written when it is there."""
    with into.open("ab", buffering=0) as out:
        for figure in importlib.import_module(module).run(quick):
            out.write(msgspec.json.encode(figure) + b"\n")


def report(names: Sequence[str], quick: bool, folder: Path, console: Console) -> Report:
    """Run benchmarks one after another, and say of each what it has found."""
    at, about, results = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ"), machine(), list[Result]()
    console.print(headline(about, quick))
    for name in names:
        with console.status(f"{name} ..."):
            results.append(measured(name, BENCHES[name], quick, folder))
        show(results[-1], console)
    return Report(at=at, quick=quick, machine=about, results=results)


def headline(about: Mapping[str, Any], quick: bool) -> str:
    versions = ", ".join(f"{name} {said}" for name, said in about["versions"].items())
    place = f"{about['cores']} x {about['processor']}, {about['memory_gb']} GB, {about['system']}; {about['commit']}"
    return f"{place}\n{versions}{chr(10) + '--quick: sizes too small to judge by' if quick else ''}"


def show(result: Result, console: Console) -> None:
    before, after = result.before, result.after
    now = f"{result.seconds:.0f} s; load {before['load']:.1f}, {before['speed']:.0f} -> {after['speed']:.0f} M steps/s"
    table = Table(title=f"{result.name}  ({now})", title_justify="left", title_style="bold", expand=False)
    for column, side in (
        ("", "left"),
        ("ours", "right"),
        ("beside", "right"),
        ("ratio", "right"),
        ("goal", "right"),
        ("", "left"),
    ):
        table.add_column(column, justify="right" if side == "right" else "left")
    for figure in result.figures:
        beside = [f"{name} {shown(value)}" for name, value in figure.beside.items()]
        beside += [f"[dim]{name}, recorded {shown(value)}[/]" for name, value in figure.recorded.items()]
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        goal = "" if figure.goal_value is None else f"{'>=' if figure.better == 'higher' else '<='} {shown(figure.goal_value)}"
        mark = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[figure.met]
        table.add_row(figure.name, f"{shown(figure.ours)} {figure.unit}", "\n".join(beside), ratio, goal, mark)
    console.print(table)
    for figure in result.figures:
        if figure.note:
            console.print(f"[yellow]{figure.name}: {figure.note}[/]")
    if result.error:
        console.print(f"[red]{result.name}: {result.error}[/]")


def written(found: Report, folder: Path) -> tuple[Path, Path]:
    """The files of a report: JSON and picture."""
    folder.mkdir(parents=True, exist_ok=True)
    data, picture = folder / f"{found.at}.json", folder / f"{found.at}.svg"
    ratios = [[{"ratio": f.ratio, "met": f.met} for f in result.figures] for result in found.results]
    plain = msgspec.to_builtins(found)
    for result, extra in zip(plain["results"], ratios, strict=True):
        result["figures"] = [figure | more for figure, more in zip(result["figures"], extra, strict=True)]
    data.write_bytes(msgspec.json.format(msgspec.json.encode(plain), indent=2) + b"\n")
    about = found.machine
    where = f"{about['cores']} x {about['processor']}, Python {about['versions']['python']}, {about['commit']}, {found.at}"
    title = "Penstock, make bench" + (" --quick: sizes too small to judge by" if found.quick else "")
    picture.write_text(drawn(title, where, {r.name: r.figures for r in found.results if r.figures}), encoding="utf-8")
    return data, picture


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which (all): {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--into", type=Path, default=ROOT / ".penstock" / "bench", help="folder of the results")
    parser.add_argument("--within", metavar="MODULE", help=argparse.SUPPRESS)  # the process of one benchmark
    options = parser.parse_args()
    if options.within:
        within(options.within, options.quick, options.into)
        return 0
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C does: what runs is ended first
    console = Console(width=None if sys.stdout.isatty() else 160)
    found = report(options.names or list(BENCHES), options.quick, options.into, console)
    for place in written(found, options.into):
        console.print(f"written: {place}", soft_wrap=True)
    return 1 if any(result.error for result in found.results) else 0


if __name__ == "__main__":
    sys.exit(main())
