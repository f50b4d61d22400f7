"""`pipeline compare`: several allocators, criteria and solvers at the same measured latency."""

import functools
import json
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from pipeline.commands.options import plain_type, run_options
from pipeline.commands.tables import shown
from pipeline.config import RunConfig, resolve
from pipeline.console import Reporter
from targets.errors import ConfigError, SpeedupError

if TYPE_CHECKING:
    from pipeline.comparison.grid import GridRow

LISTS = ("allocator", "criterion", "solver")
"""Settings that may have several values here, beside the speedup."""


def _speedups(context: click.Context, option: click.Parameter, value: str) -> list[float]:  # noqa: ARG001
    try:
        return [float(word) for word in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"numbers above 1 with commas between, such as 2,3; got {value}") from None


def _names(context: click.Context, option: click.Parameter, value: str | None) -> list[str] | None:  # noqa: ARG001
    assert option.name is not None
    field = RunConfig.model_fields[option.name]
    known = typing.get_args(plain_type(field.annotation))
    if value is None:
        return None
    names = value.split(",")
    for name in names:
        if name not in known:
            raise click.BadParameter(f"there is no {option.name} {name!r}; choose from {', '.join(known)}")
    return names


def _list_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name in reversed(LISTS):
        field = RunConfig.model_fields[name]
        text = f"{field.description}; several with commas between  [default: {field.default}]"
        command = click.option(f"--{name}", name, callback=_names, help=text)(command)
    return click.option("--speedup", "speedups", callback=_speedups, required=True, help="such as 2,3")(command)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("runs/compare"))
@_list_options
@functools.partial(run_options, without=("speedup", *LISTS, "compare"))
def compare(
    folder: Path,
    speedups: list[float],
    allocator: list[str] | None,
    criterion: list[str] | None,
    solver: list[str] | None,
    config: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Every combination of allocator, criterion and solver at the same measured latency, as a table and a chart.

    \b
    pipeline compare runs/compare --speedup 2,3 --allocator spdy,uniform
    pipeline compare runs/compare --speedup 3 --allocator spdy --criterion obs,magnitude --solver auto,blocked

    Each combination is a run folder in FOLDER (default: runs/compare) up to its corrected network; what does not depend
    on what differs is done once. FOLDER gets comparison.json, comparison.html and comparison.md. The same command goes
    on where it was interrupted.
    """
    base = resolve(flags | {"speedup": speedups[0]}, config, None)
    if base.runtime == "auto":
        raise ConfigError("Ways to compress are compared on one runtime: name it with --runtime, or leave it out.")
    for value in speedups[1:]:
        resolve(flags | {"speedup": value}, config, None)
    from pipeline.comparison.grid import combinations, compare_combinations
    from pipeline.setup import prepare

    reporter = Reporter()
    chosen = combinations(
        speedups, allocator or [base.allocator], criterion or [base.criterion], solver or [base.solver]
    )
    metric = ""

    def prepare_run(run_config: RunConfig, run_folder: Any) -> Any:
        nonlocal metric
        run = prepare(run_config, run_folder, reporter)
        metric = run.adapter.metric
        return run

    rows = compare_combinations(base, folder, chosen, prepare_run)
    _write(folder, rows, metric)
    _tell(folder, rows, metric, reporter)
    codes = {row.exit_code for row in rows}
    code = 0 if 0 in codes else codes.pop() if len(codes) == 1 else SpeedupError.exit_code
    if as_json:
        click.echo(json.dumps({"status": "done", "exit_code": code, "rows": [row.to_json() for row in rows]}))
    click.get_current_context().exit(code)


def _write(folder: Path, rows: "list[GridRow]", metric: str) -> None:
    from pipeline.comparison.grid_page import grid_page
    from pipeline.run_folder import write_json
    from reports.html import render_html
    from reports.markdown import render_markdown
    from targets.files import write_atomically

    page = grid_page(rows, metric)
    write_json(folder / "comparison.json", {"schema": 1, "metric": metric, "rows": [row.to_json() for row in rows]})
    write_atomically(folder / "comparison.html", render_html(page).encode())
    write_atomically(folder / "comparison.md", render_markdown(page).encode())


def _tell(folder: Path, rows: "list[GridRow]", metric: str, reporter: Reporter) -> None:
    from pipeline.comparison.grid_page import grid_table

    reporter.table(shown(grid_table(rows, metric)))
    reporter.say(escape(f"chart and table: {folder / 'comparison.html'}"))
