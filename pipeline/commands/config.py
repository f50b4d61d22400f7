"""`pipeline config`: every setting of a run, as a file to fill in or as a schema for programs."""

import json
import textwrap
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from pipeline.commands.options import plain_type
from pipeline.config import RunConfig
from pipeline.console import Reporter
from targets.errors import ConfigError
from targets.files import write_atomically

WIDTH = 100
EXAMPLES: dict[type, str] = {int: "1", float: "1.0"}
"""Values for settings that have no default; others get an empty string to fill in."""
HEAD = """\
# Settings of a run: pipeline run --config {name}
# A line that begins with # says the default, or what to fill in. Flags win over this file.
"""


@click.command("config")
@click.argument("file", type=click.Path(path_type=Path), default=Path("release.toml"))
@click.option(
    "--init", is_flag=True, help="write FILE with every setting, its meaning and its default; - for the screen"
)
@click.option("--schema", is_flag=True, help="print the JSON Schema of such a file")
def config_command(file: Path, init: bool, schema: bool) -> None:
    """The configuration file of a run.

    \b
    pipeline config --init release.toml
    pipeline run --config release.toml
    pipeline config --schema > release.schema.json
    """
    if init == schema:
        raise click.UsageError("Say either --init, for a file to fill in, or --schema, for its JSON Schema.")
    if schema:
        click.echo(json.dumps(json_schema(), indent=2))
    elif str(file) == "-":
        click.echo(toml_template("release.toml"), nl=False)
    else:
        _write(file)


def _write(file: Path) -> None:
    if file.exists():
        raise ConfigError(f"{file} is there already and is left as it is. Name another file, or - to see one.")
    try:
        write_atomically(file, toml_template(file.name).encode())
    except OSError as error:
        raise ConfigError(f"Cannot write {file}: {error}.") from None
    Reporter().say(f"{file}: fill it in, then `pipeline run --config {file}`.")


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a configuration file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | RunConfig.model_json_schema()


def toml_template(name: str) -> str:
    """A configuration file with every setting, its meaning and its default; valid as it is."""
    entries = [_entry(key, field) for key, field in RunConfig.model_fields.items()]
    return "\n".join([HEAD.format(name=name), *entries])


def _entry(key: str, field: FieldInfo) -> str:
    kind = plain_type(field.annotation)
    about = "; ".join([field.description or key, *_limits(field, kind)])
    comment = textwrap.fill(about, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    if field.is_required():
        return f"{comment}\n{key} = 3.0\n"
    least = [limit.ge for limit in field.metadata if hasattr(limit, "ge")]
    value = (least or [EXAMPLES.get(kind, '""')])[0] if field.default is None else json.dumps(field.default)
    return f"{comment}\n# {key} = {value}\n"


def _limits(field: FieldInfo, kind: Any) -> list[str]:
    """What values there may be, in words."""
    words = ["one of " + ", ".join(get_args(kind))] if get_origin(kind) is Literal else []
    for name, text in (("ge", "at least"), ("le", "at most")):
        words += [f"{text} {getattr(limit, name)}" for limit in field.metadata if hasattr(limit, name)]
    return words
