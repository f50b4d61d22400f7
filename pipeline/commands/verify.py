"""`pipeline verify`: is a bundle what was certified, and by whom?"""

import json
from pathlib import Path

import click

from pipeline.commands.options import as_json_option, public_key_option
from pipeline.console import Reporter


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@public_key_option
@as_json_option
def verify(bundle: Path, public_key: Path | None, as_json: bool) -> None:
    """Check that every file of a bundle is as it was certified, and its signature (exit 5 if not).

    \b
    pipeline verify runs/release/bundle
    pipeline verify runs/release/bundle --public-key release.pub

    Without a public key, a signature only shows that nothing was altered since someone signed; with one, that it was
    this key's owner.
    """
    from pipeline.provenance.signing import verify_bundle

    manifest, signature = verify_bundle(bundle, public_key)
    signed = signature.fingerprint if signature else None
    Reporter().say(f"{bundle}: {len(manifest['files'])} files, all as certified ({manifest['status']}).")
    if signed:
        Reporter().say(f"signed by {signed}" + ("" if public_key else ", which was compared with no key of yours"))
    if as_json:
        answer = {"certificate_status": manifest["status"], "signed_by": signed, "trusted": bool(public_key)}
        click.echo(json.dumps({"status": "verified", "exit_code": 0, **answer}))
