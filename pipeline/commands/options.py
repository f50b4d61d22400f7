"""Options that several commands share."""

import typing
from collections.abc import Callable, Collection
from pathlib import Path
from types import UnionType
from typing import Any, Literal

import click

from pipeline.config import RunConfig
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


def run_options(command: Callable[..., Any], without: Collection[str] = ()) -> Callable[..., Any]:
    """One option a configuration field, in the fields' order; ``without`` names fields that get none."""
    for name, field in reversed(RunConfig.model_fields.items()):
        if name in without:
            continue
        flag = "--" + name.replace("_", "-")
        shown = "" if field.is_required() or field.default is None else f"  [default: {field.default}]"
        help_text = (field.description or "") + shown
        kind = plain_type(field.annotation)
        if kind is bool:
            flag = f"{flag}/--no-{name.replace('_', '-')}"
        command = click.option(flag, name, type=_click_type(kind), default=None, help=help_text)(command)
    command = click.option("--config", type=click.Path(path_type=Path), help="TOML file with these names; flags win")(
        command
    )
    return as_json_option(command)


def plain_type(annotation: Any) -> Any:
    """A field's type without None."""
    if isinstance(annotation, UnionType):
        return next(part for part in typing.get_args(annotation) if part is not type(None))
    return annotation


def _click_type(kind: Any) -> Any:
    if typing.get_origin(kind) is Literal:
        return click.Choice(typing.get_args(kind))
    return click.Path(path_type=Path) if kind is Path else kind
