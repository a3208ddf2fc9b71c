"""`make bench`: see `--help`."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from tests.benchmarks.measure import measure
from tests.benchmarks.operations import OPERATIONS, Operation
from tests.benchmarks.profiles import profile
from tests.benchmarks.stage import CONNECTIONS, WORKERS, staged
from tests.benchmarks.steady import crowded, steady

# What the ratio to yardstick (a) must be at least, on PostgreSQL with 10,000 patients.
WANTED = {"read": 0.60, "list": 0.50, "search": 0.50, "create": 0.40, "book": 0.30}
COLUMNS = {
    "requests_per_second": "req/s",
    "median_ms": "median ms",
    "p99_ms": "p99 ms",
    "alone_median_ms": "alone ms",
    "queries": "queries",
    "round_trips": "trips",
    "ratio_bare": "ratio (a)",
    "ratio_driver": "ratio (b)",
    "app_cpu_us": "app µs",
    "bare_cpu_us": "(a) µs",
    "database_cpu_us": "database µs",
    "client_cpu_us": "client µs",
    "times_median": "times",
    "times_alone_median": "times alone",
}


def operations(names: str | None) -> list[type[Operation]]:
    """Those of these names, separated by commas; all without any."""
    known = {kind.name: kind for kind in OPERATIONS}
    wanted = names.split(",") if names else list(known)
    if unknown := set(wanted) - set(known):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return [known[name] for name in wanted]


def show(found: dict[str, dict[str, Any]]) -> None:
    """The figures as a table."""
    table = Table()
    table.add_column("operation")
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right")
    for name, figures in found.items():
        cells = [f"{figures.get(key, ''):,}" if key in figures else "" for key in COLUMNS]
        short = figures.get("ratio_bare", 1) < WANTED.get(name, 0)
        table.add_row(f"{figures['title']} ({name})", *cells, style="red" if short else None)
    Console(width=170).print(table)


def compare(found: dict[str, dict[str, Any]], smaller: dict[str, dict[str, Any]]) -> None:
    """Add how many times as long each takes as it took in a smaller clinic."""
    for name in found.keys() & smaller.keys():
        for key in ("median_ms", "alone_median_ms"):
            found[name][f"times_{key.removesuffix('_ms')}"] = round(found[name][key] / smaller[name][key], 2)


@click.command(context_settings={"show_default": True})
@click.option("--engine", type=click.Choice(["postgresql", "sqlite"]), default="postgresql")
@click.option("--patients", type=click.IntRange(1_000), default=10_000, help="How many the clinic has.")
@click.option("--seed", default=1, help="Of the generated clinic.")
@click.option("--only", help="Operations by name, separated by commas.")
@click.option("--rounds", type=click.IntRange(1), default=18, help="Of which the median is told.")
@click.option("--seconds", type=click.FloatRange(0.1), default=0.45, help="Length of one slice.")
@click.option(
    "--yardsticks", type=click.Choice(["ab", "a", "b", ""]), default="ab", help="What to compare with."
)
@click.option("--profile", "profiled", help="Profile this operation instead of measuring.")
@click.option("--steady", "minutes", type=click.FloatRange(2), help="Minutes at 100 requests/s instead.")
@click.option("--crowd", is_flag=True, help="What 50 wrong sign-ins at once do to others instead.")
@click.option(
    "--beside",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The JSON of a smaller clinic: how many times its medians are these?",
)
@click.option("--out", type=click.Path(path_type=Path), default="bench.json", help="Where the JSON goes.")
def bench(
    engine: str,
    patients: int,
    seed: int,
    only: str | None,
    rounds: int,
    seconds: float,
    yardsticks: str,
    profiled: str | None,
    minutes: float | None,
    crowd: bool,
    beside: Path | None,
    out: Path,
) -> None:
    """Measure the clinic under gunicorn, beside (a) a bare Flask application and (b) the bare driver.

    Rates are over 8 keep-alive connections, `alone` is one request after the other. A ratio is the median
    over the rounds of the clinic's rate to the yardstick's, which takes its turn right before or after.
    """
    chosen = operations(profiled or only)
    began = time.monotonic()
    with staged(engine, patients, seed, replayed="b" in yardsticks) as stage:
        ready_s = time.monotonic() - began
        click.echo(f"filled in {stage.grown_s:.0f} s, started after {ready_s:.0f} s", err=True)
        if profiled:
            for kind in chosen:
                click.echo(profile(stage, kind))
            return
        if minutes or crowd:
            told = steady(stage, minutes) if minutes else crowded(stage)
            out.write_text(json.dumps(told, indent=1) + "\n")
            click.echo(out.read_text())
            return
        figures = measure(stage, chosen, rounds=rounds, seconds=seconds, yardsticks=yardsticks)
    found = {name: one.told() for name, one in figures.items()}
    if beside is not None:
        compare(found, json.loads(beside.read_text())["operations"])
    show(found)
    setting = {
        "engine": engine,
        "patients": patients,
        "seed": seed,
        "rounds": rounds,
        "seconds": seconds,
        "connections": CONNECTIONS,
        "workers": WORKERS,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "filled_s": round(stage.grown_s, 1),
        "took_s": round(time.monotonic() - began),
    }
    out.write_text(json.dumps({"setting": setting, "operations": found}, indent=1) + "\n")
    click.echo(f"{out} written after {setting['took_s']} s", err=True)


if __name__ == "__main__":
    bench(prog_name="make bench")
