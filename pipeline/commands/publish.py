"""`pipeline publish`: a bundle goes where it is used."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.options import as_json_option, public_key_option, timeout_option
from pipeline.console import Reporter

if TYPE_CHECKING:
    from pipeline.publishing.publish import Layout


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--to", "destination", required=True, help="oci://registry/repository:tag, dir:PATH or mlflow:NAME[@URI]")
@click.option(
    "--layout",
    type=click.Choice(["openvino-model-server", "triton", "plain"]),
    help="how dir:PATH is laid out  [default: plain]",
)
@click.option("--force", "why", metavar="WHY", help="publish in spite of all objections; the reason is recorded")
@click.option("--overwrite", is_flag=True, help="replace a tag that exists")
@public_key_option
@timeout_option
@as_json_option
def publish(
    bundle: Path,
    destination: str,
    layout: "Layout | None",
    why: str | None,
    overwrite: bool,
    public_key: Path | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Publish a certified bundle: to a registry, a folder that a server reads, or MLflow.

    \b
    pipeline publish runs/release/bundle --to oci://registry.example.com/models/resnet20:v3
    pipeline publish runs/release/bundle --to dir:/srv/models/resnet20 --layout triton
    pipeline publish runs/release/bundle --to mlflow:resnet20@http://localhost:5000

    A bundle that was altered, is not certified, or is not signed by the public key that is named is refused (exit 5, 3
    or 6), unless --force says why. A registry is asked with SPDY_EDGE_REGISTRY_USER and SPDY_EDGE_REGISTRY_PASSWORD, or
    with what `docker login` wrote.
    """
    from pipeline.publishing.publish import Options
    from pipeline.publishing.publish import publish as publish_bundle

    reporter = Reporter()
    with reporter.task("uploading", 1) as task:
        options = Options(layout, overwrite, timeout_s, lambda done, total, name: task.update(done, name, total))
        published = publish_bundle(bundle, destination, public_key=public_key, why=why, options=options)
    if published.forced:
        reporter.warn(f"forced: {published.forced}")
    elif why:
        reporter.say("nothing stood against it: --force was not needed, and its reason is not recorded")
    reporter.say(f"published: {published.where}" + (f" ({published.digest})" if published.digest else ""))
    if as_json:
        answer = {"to": published.where, "digest": published.digest, "forced": published.forced}
        click.echo(json.dumps({"status": "published", "exit_code": 0, **answer}))
