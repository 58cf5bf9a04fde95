"""Serving: the HTTP server, its keys, and what users taught it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unmask.cli.options import FILE, FOLDER, local_tracking_uri
from unmask.cli.root import DEFAULT_WORK, cli
from unmask.config import load_config
from unmask.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from unmask.serving.models import ModelSource

DEFAULT_PORT = 8000


@cli.command()
@click.option(
    "--bundle",
    type=FOLDER,
    help="Folder that `bundle` wrote.  [default: .unmask/latest/bundle, from the last `unmask run`]",
)
@click.option("--model", help="Registered model instead, e.g. models:/unmask-detector@champion; its alias is followed.")
@click.option("--challenger", help="Second model for A/B routing or as a shadow; a folder or models:/ URI.")
@click.option("--tracking-uri", default="", help="MLflow server or sqlite:/// URI for models:/ URIs.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=DEFAULT_PORT, show_default=True, help="Port to listen on.")
@click.option("--keys", "key_file", type=FILE, help="File of API keys; see `unmask serve-key`.")
@click.option("--without-keys", is_flag=True, help="Let everybody ask, also from other machines.")
@click.option("--allowed-host", multiple=True, help="Name under which the server is asked; may be given several times.")
@click.option("--work", default=DEFAULT_WORK / "serve", show_default=True, type=FOLDER, help="Folder for its files.")
@click.option("--feedback-db", default="", help="postgresql+pg8000://… or sqlite:///…  [default: a file in --work]")
@click.option("--config", "config_file", type=FILE, help="YAML file; see `unmask config init`, section serve.")
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="One setting, e.g. serve.workers=4.")
def serve(
    bundle: Path | None,
    model: str | None,
    challenger: str | None,
    tracking_uri: str,
    host: str,
    port: int,
    key_file: Path | None,
    without_keys: bool,
    allowed_host: Sequence[str],
    work: Path,
    feedback_db: str,
    config_file: Path | None,
    overrides: Sequence[str],
) -> None:
    """Answer over HTTP: a page for people, an API for programs.

    Files are decoded in processes of their own and deleted when they are answered. A model given as models:/NAME@ALIAS
    is followed: when the alias moves, the new version is tested and answers without a restart.
    """
    try:
        import uvicorn

        from unmask.serving.app import create_app
        from unmask.serving.keys import Keys, load_keys
        from unmask.serving.public import allowed_hosts, check_exposure
        from unmask.serving.telemetry import log_json
    except ImportError as error:
        raise MissingExtraError("The server", "serving") from error
    config = load_config(config_file, overrides).serve
    if model and bundle:
        raise InputError("Both --model and --bundle were given.", "Give one of them.")
    if challenger is None and config.challenger_share > 0:
        raise InputError("serve.challenger_share is set without a challenger.", "Give --challenger.")
    keys = load_keys(key_file) if key_file is not None else Keys([])
    check_exposure(host, keys, without_keys)
    tracking = tracking_uri or local_tracking_uri(DEFAULT_WORK)
    champion = _source(model or str(bundle or DEFAULT_WORK / "latest" / "bundle"), tracking)
    second = None if challenger is None else _source(challenger, tracking)
    for source in (champion, second):
        if source is not None:
            source.current()  # what is wrong here is told in a sentence, and not in the middle of a log
    app = create_app(
        champion,
        config,
        work,
        challenger=second,
        keys=keys,
        feedback_url=feedback_db,
        hosts=allowed_hosts(host, tuple(allowed_host)),
    )
    log_json()
    click.echo(f"Loading the detector; then unmask answers at http://{host}:{port} (Ctrl+C ends it)", err=True)
    uvicorn.run(
        app,
        host=host,
        port=port,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=60,
    )


@cli.command("serve-key")
@click.argument("name")
@click.option("--keys", "key_file", required=True, type=FILE, help="File of API keys; made if there is none.")
@click.option("--requests-per-minute", type=float, help="Its rate, if it is not the usual one.")
def serve_key(name: str, key_file: Path, requests_per_minute: float | None) -> None:
    """Make an API key for `unmask serve`; the file holds only its hash."""
    from unmask.serving.keys import add_key

    click.echo(add_key(key_file, name, requests_per_minute))
    click.echo(f"This is the key of {name}; it is stored nowhere, so keep it now.", err=True)


@cli.command("feedback-export")
@click.option("--out", required=True, type=FOLDER, help="Folder to write, with real/ and fake/ as `ingest` reads it.")
@click.option("--work", default=DEFAULT_WORK / "serve", show_default=True, type=FOLDER, help="Of the server.")
@click.option("--feedback-db", default="", help="Of the server.")
@click.option("--unverified", is_flag=True, help="Also labels that nobody checked.")
def feedback_export(out: Path, work: Path, feedback_db: str, unverified: bool) -> None:
    """Turn kept uploads and what users said of them into labelled data for the next training."""
    from unmask.serving.export import export_labelled
    from unmask.serving.store import FeedbackStore

    store = FeedbackStore(feedback_db or f"sqlite:///{(work / 'feedback.db').absolute()}")
    done = export_labelled(store, work / "kept", out, verified_only=not unverified)
    store.close()
    click.echo(f"Wrote {done.counts.get('real', 0)} real and {done.counts.get('fake', 0)} fake files to {out}.")
    for reason, count in done.left_out.items():
        click.echo(f"  left out: {count} ({reason})")


def _source(text: str, tracking_uri: str) -> ModelSource:
    if text.startswith("models:/"):
        from unmask.adapters.model_alias import AliasSource

        return AliasSource(text, tracking_uri)
    from unmask.serving.models import FolderSource

    folder = Path(text)
    if not folder.is_dir():
        raise InputError(
            f"There is no bundle at {folder}.", "Run `make run` first, or give --bundle FOLDER or --model URI."
        )
    return FolderSource(folder)
