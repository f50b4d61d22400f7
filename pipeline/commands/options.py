"""Options that several commands share."""

from pathlib import Path

import click

from pipeline.provenance.variables import PUBLIC_KEY_VARIABLE

as_json_option = click.option("--json", "as_json", is_flag=True, help="print one JSON object on standard output")
public_key_option = click.option(
    "--public-key",
    type=click.Path(path_type=Path),
    envvar=PUBLIC_KEY_VARIABLE,
    help=f"refuse what this key has not signed  [default: ${PUBLIC_KEY_VARIABLE}]",
)
timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    help="seconds that a registry may be silent  [default: 60]",
)
