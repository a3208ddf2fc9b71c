"""The command of the benchmarks, `make bench`: see `--help`."""

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

from tests.benchmarks.compare import compare_checkouts
from tests.benchmarks.environment import (
    CONNECTIONS,
    WORKERS,
    filled_database,
    started_environment,
)
from tests.benchmarks.measure import measure
from tests.benchmarks.operations import OPERATIONS, Operation
from tests.benchmarks.profiles import profile
from tests.benchmarks.steady import measure_beside_sign_ins, measure_steady_load

# Required ratios to baseline (a), on PostgreSQL with 10,000 patients.
REQUIRED_RATIOS = {"read": 0.60, "list": 0.50, "search": 0.50, "create": 0.40, "book": 0.30}
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
COMPARISON_COLUMNS = {
    "requests_per_second": "req/s",
    "other_requests_per_second": "other req/s",
    "rate_ratio": "ratio req/s",
    "p99_ms": "p99 ms",
    "other_p99_ms": "other p99 ms",
    "p99_ratio": "ratio p99",
}


def select_operations(names: str | None) -> list[type[Operation]]:
    """Return the operations of a comma-separated list of names. Without names, return all."""
    known = {operation.name: operation for operation in OPERATIONS}
    selected = names.split(",") if names else list(known)
    if unknown := set(selected) - set(known):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; the operations are {', '.join(known)}")
    return [known[name] for name in selected]


def print_table(operations: dict[str, dict[str, Any]], columns: dict[str, str]) -> None:
    """Print the figures, one row per operation. A row below its required ratio is red."""
    table = Table()
    table.add_column("operation")
    for heading in columns.values():
        table.add_column(heading, justify="right")
    for name, figures in operations.items():
        cells = [f"{figures[key]:,}" if key in figures else "" for key in columns]
        too_slow = figures.get("ratio_bare", 1) < REQUIRED_RATIOS.get(name, 0)
        table.add_row(f"{figures['title']} ({name})", *cells, style="red" if too_slow else None)
    Console(width=170).print(table)


def add_growth(operations: dict[str, dict[str, Any]], smaller: dict[str, dict[str, Any]]) -> None:
    """Add the ratios of the medians to those of a smaller database."""
    for name in operations.keys() & smaller.keys():
        for key in ("median_ms", "alone_median_ms"):
            ratio = operations[name][key] / smaller[name][key]
            operations[name][f"times_{key.removesuffix('_ms')}"] = round(ratio, 2)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write the result file."""
    path.write_text(json.dumps(content, indent=1) + "\n")
    click.echo(f"written: {path}", err=True)


@click.command(context_settings={"show_default": True})
@click.option("--engine", type=click.Choice(["postgresql", "sqlite"]), default="postgresql")
@click.option("--patients", type=click.IntRange(1_000), default=10_000, help="Number of patients.")
@click.option("--seed", default=1, help="Seed of the generated data.")
@click.option("--only", help="Names of operations, separated by commas.")
@click.option("--rounds", type=click.IntRange(1), default=18, help="Number of rounds.")
@click.option("--seconds", type=click.FloatRange(0.1), default=0.45, help="Length of one measurement.")
@click.option(
    "--yardsticks", "baselines", type=click.Choice(["ab", "a", "b", ""]), default="ab", help="Baselines."
)
@click.option("--profile", "profiled", help="Instead: profile this operation.")
@click.option("--steady", "minutes", type=click.FloatRange(2), help="Instead: minutes at 100 requests/s.")
@click.option(
    "--crowd", is_flag=True, help="Instead: the mixed load beside 50 clients with a wrong password."
)
@click.option(
    "--against",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Instead: compare with another checkout of the project in this folder.",
)
@click.option(
    "--beside",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON file of a smaller database: add the ratios of the medians.",
)
@click.option("--out", type=click.Path(path_type=Path), default="bench.json", help="JSON file to write.")
def bench(
    engine: str,
    patients: int,
    seed: int,
    only: str | None,
    rounds: int,
    seconds: float,
    baselines: str,
    profiled: str | None,
    minutes: float | None,
    crowd: bool,
    against: Path | None,
    beside: Path | None,
    out: Path,
) -> None:
    """Measure the application under its server, with two baselines: (a) bare Flask, (b) the bare driver.

    Rates are over 8 keep-alive connections. "alone" is one request after the other. A ratio is the median
    over the rounds: the rate of the application, divided by the rate of the baseline in the same round.
    """
    if against is not None and engine != "postgresql":
        raise click.UsageError("--against needs PostgreSQL.")
    operations = select_operations(profiled or only)
    started = time.monotonic()
    with filled_database(engine, patients, seed) as database:
        click.echo(f"filled in {database.fill_s:.0f} s", err=True)
        setup: dict[str, Any] = {
            "engine": engine,
            "patients": patients,
            "seed": seed,
            "rounds": rounds,
            "seconds": seconds,
            "connections": CONNECTIONS,
            "workers": WORKERS,
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "filled_s": round(database.fill_s, 1),
        }
        if against is not None:
            comparison = compare_checkouts(database, against, operations, rounds=rounds, seconds=seconds)
            print_table(comparison["operations"], COMPARISON_COLUMNS)
            click.echo(
                "worker memory: {memory_mb} MB, other {other_memory_mb} MB, ratio {memory_ratio}".format(
                    **comparison
                )
            )
            write_json(out, {"setting": setup, **comparison})
            return
        with started_environment(database, replay="b" in baselines) as environment:
            if profiled:
                click.echo(profile(environment, operations[0]))
                return
            if minutes or crowd:
                figures = (
                    measure_steady_load(environment, minutes)
                    if minutes
                    else measure_beside_sign_ins(environment)
                )
                click.echo(json.dumps(figures, indent=1))
                write_json(out, figures)
                return
            results = measure(environment, operations, rounds=rounds, seconds=seconds, baselines=baselines)
    summaries = {name: result.summary() for name, result in results.items()}
    if beside is not None:
        add_growth(summaries, json.loads(beside.read_text())["operations"])
    print_table(summaries, COLUMNS)
    setup["took_s"] = round(time.monotonic() - started)
    write_json(out, {"setting": setup, "operations": summaries})


if __name__ == "__main__":
    bench(prog_name="make bench")
