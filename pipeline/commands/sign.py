"""`pipeline keygen` and `pipeline sign`: the user's own key on a bundle."""

import json
from pathlib import Path

import click

from pipeline.commands.options import as_json_option
from pipeline.console import Reporter
from pipeline.provenance.variables import SIGNING_KEY_VARIABLE


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    envvar=SIGNING_KEY_VARIABLE,
    required=True,
    help=f"Ed25519 private key, PEM, readable by its owner alone  [default: ${SIGNING_KEY_VARIABLE}]",
)
@as_json_option
def sign(bundle: Path, key: Path, as_json: bool) -> None:
    """Sign an unaltered bundle with a key of your own; an earlier signature is replaced.

    \b
    pipeline keygen release.key
    pipeline sign runs/release/bundle --key release.key
    pipeline verify runs/release/bundle --public-key release.key.pub

    `pipeline run` signs at its end where SPDY_EDGE_SIGNING_KEY names the key.
    """
    from pipeline.provenance.signing import load_private_key, sign_bundle

    signature = sign_bundle(bundle, load_private_key(key))
    Reporter().say(f"{bundle}: signed by {signature.fingerprint}")
    if as_json:
        click.echo(json.dumps({"status": "signed", "exit_code": 0, "signed_by": signature.fingerprint}))


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def keygen(file: Path) -> None:
    """Make a key to sign bundles with: FILE, which is yours alone, and FILE.pub, which is for everyone.

    \b
    pipeline keygen release.key
    openssl genpkey -algorithm ed25519 -out release.key      the same; then chmod 600, and openssl pkey -pubout
    """
    from pipeline.provenance.signing import fingerprint, load_public_key, make_key

    public = make_key(file)
    reporter = Reporter()
    reporter.say(f"private key: {file} (keep it; it is not encrypted)")
    reporter.say(f"public key: {public} ({fingerprint(load_public_key(public))})")
