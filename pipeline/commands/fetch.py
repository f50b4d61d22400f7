"""`pipeline fetch`: a bundle comes back from a registry."""

import json
from pathlib import Path

import click

from pipeline.commands.options import as_json_option, public_key_option, timeout_option
from pipeline.console import Reporter


@click.command()
@click.argument("source")
@click.option("--out", type=click.Path(path_type=Path), help="folder that does not exist yet  [default: NAME-TAG]")
@public_key_option
@timeout_option
@as_json_option
def fetch(source: str, out: Path | None, public_key: Path | None, timeout_s: float, as_json: bool) -> None:
    """Fetch a bundle from a registry and verify it.

    \b
    pipeline fetch oci://registry.example.com/models/resnet20:v3
    pipeline fetch oci://registry.example.com/models/resnet20@sha256:4f5c…  --out model --public-key release.pub

    The folder appears once every file is there, hashed, and signed as it must be (exit 5 if not).
    """
    from pipeline.publishing.from_oci import fetch_from_oci
    from pipeline.publishing.reference import Reference

    reporter, reference = Reporter(), Reference.parse(source)
    out = out or Path(reference.folder_name)
    with reporter.task("downloading", 1) as task:
        manifest, signature = fetch_from_oci(
            reference,
            out,
            public_key,
            timeout_s=timeout_s,
            on_file=lambda done, total, name: task.update(done, name, total),
        )
    signed = signature.fingerprint if signature else None
    reporter.say(f"{out}: {len(manifest['files'])} files ({manifest['status']}), signed by {signed or 'nobody'}.")
    if as_json:
        answer = {"bundle": str(out), "certificate_status": manifest["status"], "signed_by": signed}
        click.echo(json.dumps({"status": "fetched", "exit_code": 0, **answer}))
