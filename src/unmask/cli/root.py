"""The command group, how errors are shown, and where a run puts its files."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import click

from unmask import __version__
from unmask.errors import UnmaskError

DEFAULT_WORK = Path(".unmask")


def _log_to_stderr(verbose: bool) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("unmask").setLevel(logging.DEBUG if verbose else logging.INFO)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="unmask")
@click.option("--verbose", is_flag=True, help="Say more.")
def cli(verbose: bool) -> None:
    """Turn folders of real and fake media into a deployed, calibrated deepfake detector.

    The stages, in order: ingest, extract, train (once a detector), ensemble, fuse, evaluate, bundle, promote.
    `unmask run` runs them all. `unmask score` judges a file.
    """
    _log_to_stderr(verbose)


def main() -> None:
    """Run the command; errors that a user can act on are printed without a traceback."""
    # A container is stopped with SIGTERM: leave through the normal exit, so that temporary folders are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UnmaskError as error:
        click.echo(f"error: {error.problem}", err=True)
        if error.fix:
            click.echo(f"  fix: {error.fix}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of standard output (head, less) went away; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
