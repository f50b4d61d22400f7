"""`pipeline envelope`: where a bundle's speedup holds beyond its certificate."""

import json
from pathlib import Path

import click
from rich.markup import escape

from pipeline.commands.options import as_json_option
from pipeline.commands.tables import shown
from pipeline.console import Reporter


def _numbers(context: click.Context, option: click.Parameter, value: str | None) -> list[int]:  # noqa: ARG001
    try:
        numbers = [int(word) for word in (value or "").split(",") if word]
    except ValueError:
        numbers = [0]
    if any(number < 1 for number in numbers):
        raise click.BadParameter(f"whole numbers from 1 on with commas between, such as 1,2,4; got {value}")
    return numbers


def _words(context: click.Context, option: click.Parameter, value: str | None) -> list[str]:  # noqa: ARG001
    return [word.strip() for word in (value or "").split(",") if word.strip()]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--threads", callback=_numbers, help="such as 1,2,4  [default: powers of two up to the cores]")
@click.option("--batch-sizes", callback=_numbers, help="such as 1,16,64  [default: powers of four up to the certified]")
@click.option(
    "--input-sizes", callback=_numbers, help="pixels a side or tokens, such as 160,320  [default: the bundle's alone]"
)
@click.option("--neighbour/--no-neighbour", default=True, help="also beside a busy neighbour  [default: neighbour]")
@click.option(
    "--isa", "isas", callback=_words, help="also kept to older instruction sets: avx2, or avx512 without VNNI"
)
@click.option(
    "--budget", type=click.FloatRange(0, min_open=True), default=20.0, show_default=True, help="seconds a place"
)
@click.option("--out", type=click.Path(path_type=Path), help="JSON and HTML of that name  [default: BUNDLE.envelope]")
@as_json_option
def envelope(
    bundle: Path,
    threads: list[int],
    batch_sizes: list[int],
    input_sizes: list[int],
    neighbour: bool,
    isas: list[str],
    budget: float,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure a bundle's speedup over threads, batch and input sizes, alone and beside a busy neighbour.

    \b
    pipeline envelope runs/release/bundle
    pipeline envelope runs/release/bundle --threads 1,2 --batch-sizes 1,16 --no-neighbour
    pipeline envelope runs/release/bundle --input-sizes 24,48
    pipeline envelope runs/release/bundle --isa avx2,avx512

    A place is looked at for --budget seconds, not certified; an interrupted command goes on at the next place. A
    bundle's files are made for one input size: for --input-sizes both networks are exported anew by the run folder that
    the bundle lies in, whose data must be there. For other batch sizes the shapes in the files are changed; where that
    cannot be, it is said. --isa says what the network answers where the runtime is kept to what an older CPU has, and
    how much slower it is: openvino and deepsparse can be, onnxruntime cannot.
    """
    from dataclasses import replace

    from pipeline.envelope.envelope import QUICK, measure_envelope
    from pipeline.envelope.envelope_page import envelope_page, isa_table, maps_of
    from pipeline.files import write_where_asked
    from reports.html import render_html

    reporter = Reporter()
    base = out or bundle.resolve().with_name(f"{bundle.resolve().name}.envelope")
    with reporter.task("measuring", 1) as task:
        found = measure_envelope(
            bundle,
            threads=threads,
            batches=batch_sizes,
            input_sizes=input_sizes,
            neighbour=neighbour,
            isas=isas,
            protocol=replace(QUICK, budget_s=budget),
            on_place=lambda done, total: task.update(done, total=total),
            kept=base.with_name(base.name + ".envelope-part.jsonl"),
        )
    page = envelope_page(found)
    write_where_asked(base.with_name(base.name + ".json"), json.dumps(found.to_json(), indent=1))
    write_where_asked(base.with_name(base.name + ".html"), render_html(page))
    for table in (*maps_of(found), *([isa_table(found)] if found.isas else [])):
        reporter.say(table.caption)
        reporter.table(shown(table))
    reporter.stage(f"{page.headline}: {escape(str(base))}.html")
    if out is None:
        _renew_report(bundle.resolve().parent, reporter)
    if as_json:
        click.echo(json.dumps({"status": "done", "exit_code": 0, **found.to_json()}))


def _renew_report(folder: Path, reporter: Reporter) -> None:
    """Have the report of a run folder show the envelope; the bundle's own stays as it was certified."""
    from reports.errors import ReportError
    from reports.write import write_reports

    if not (folder / "run.json").exists():
        return
    try:
        write_reports(folder, folder)
    except (ReportError, ModuleNotFoundError) as error:
        reporter.warn(f"the run's report does not show the envelope: {error}")
