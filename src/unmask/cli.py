"""The `unmask` command: one subcommand a stage, the same by hand, in a container and in the local run."""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from unmask import __version__
from unmask.config import UnmaskConfig, commented_defaults, load_config
from unmask.errors import InputError, UnmaskError
from unmask.schemas import StageOutcome

Command = TypeVar("Command", bound=Callable[..., Any])
FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
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


# --- options that all stages share -----------------------------------------------------------------------------------


def stage(function: Command) -> Command:
    """Add what every stage understands: configuration and the KFP executor input."""

    @click.option("--config", "config_file", type=FILE, help="YAML file; see `unmask config init`.")
    @click.option("--config-inline", default="", metavar="YAML", help="Settings as YAML text; win over --config.")
    @click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="One setting, e.g. train.epochs=3.")
    @click.option("--executor-input", default="", hidden=True, help="Written by Kubeflow Pipelines.")
    @functools.wraps(function)
    def wrapped(
        config_file: Path | None,
        config_inline: str,
        overrides: Sequence[str],
        executor_input: str,
        **options: Any,
    ) -> None:
        from unmask.adapters.kfp_executor import ExecutorIO

        config = load_config(config_file, overrides, config_inline)
        task = ExecutorIO.from_json(executor_input) if executor_input else None
        if task is not None and "trained" in options:
            options["trained"] = (*options["trained"], *task.input_paths("detectors"))
        if "trained" in options and not options["trained"]:
            raise InputError("No trained detector was given.", "Give --trained FOLDER once for each detector.")
        outcome: StageOutcome = function(config=config, **options)
        for message in outcome.messages:
            click.echo(message)
        if task is not None:
            task.finish(outcome, _output_parameters(options))

    return wrapped  # type: ignore[return-value]


def _output_parameters(options: dict[str, Any]) -> dict[str, str]:
    """Read the small values that later KFP steps take as parameters."""
    from unmask.schemas import DatasetInfo

    out = options.get("out")
    if out is not None and (out / "samples.parquet").is_file():
        return {"dataset_version": DatasetInfo.load(out / "dataset.json").version}
    return {}


def _folder_option(name: str, text: str) -> Callable[[Command], Command]:
    return click.option(f"--{name}", required=True, type=FOLDER, help=text)


out_option = _folder_option("out", "Folder to write; appears only when the stage has succeeded.")
dataset_option = _folder_option("dataset", "Folder that `ingest` wrote.")
faces_option = _folder_option("faces", "Face crops that `extract` wrote.")
features_option = _folder_option("features", "Features that `extract` wrote.")
ensemble_option = _folder_option("ensemble", "Folder that `ensemble` wrote.")
fusion_option = _folder_option("fusion", "Folder that `fuse` wrote.")
trained_option = click.option(
    "--trained", multiple=True, type=FOLDER, help="Folder that `train` wrote; once for each detector."
)
store_option = click.option(
    "--store", type=FOLDER, help="Folder that keeps finished work between runs, so that a killed run loses little."
)


# --- stages ----------------------------------------------------------------------------------------------------------


@cli.command()
@click.option(
    "--source",
    "sources",
    multiple=True,
    required=True,
    metavar="[NAME=]FOLDER",
    help="Folder with real/ and fake/ below it; may be given several times.",
)
@out_option
@store_option
@stage
def ingest(sources: Sequence[str], out: Path, store: Path | None, config: UnmaskConfig) -> StageOutcome:
    """Find, check and split media: folders of files become a table of samples.

    Every file is probed; what cannot be used becomes a row with a reason. Files that share a source video or an
    identity stay in one split, so that no later figure rests on a leak.
    """
    from unmask.data.ingest_stage import run_ingest

    return run_ingest(_named_sources(sources), out, config.ingest, config.seed, store)


def _named_sources(texts: Sequence[str]) -> list[tuple[str, Path]]:
    """Read sources; Kubeflow hands over a whole list as one JSON text."""
    listed: list[str] = []
    for text in texts:
        listed += json.loads(text) if text.startswith("[") else [text]
    return [_named_source(text) for text in listed]


def _named_source(text: str) -> tuple[str, Path]:
    if Path(text).is_dir():  # also when its name holds an equals sign
        return Path(text).resolve().name, Path(text)
    name, equals, folder = text.partition("=")
    path = Path(folder if equals else name).expanduser()
    return (name if equals else path.resolve().name), path


@cli.command()
@dataset_option
@click.option("--out-faces", required=True, type=FOLDER, help="Folder for the face crops.")
@click.option("--out-features", required=True, type=FOLDER, help="Folder for the feature table.")
@store_option
@stage
def extract(
    dataset: Path, out_faces: Path, out_features: Path, store: Path | None, config: UnmaskConfig
) -> StageOutcome:
    """Decode each file once: face crops and forensic features.

    What cannot be measured is null with a reason. With --store, files measured before are not measured again.
    """
    from unmask.features.extract_stage import run_extract

    return run_extract(dataset, out_faces, out_features, config.extract, store)


@cli.command()
@click.option("--detector", required=True, help="Name of the detector, e.g. meso4 or timm:resnet10t.")
@dataset_option
@faces_option
@features_option
@out_option
@store_option
@stage
def train(
    detector: str, dataset: Path, faces: Path, features: Path, out: Path, store: Path | None, config: UnmaskConfig
) -> StageOutcome:
    """Train one detector on the train split; the checkpoint is chosen on val.

    With --store, a killed training goes on from its last checkpoint and ends with the same weights.
    """
    from unmask.training.train_stage import run_train

    return run_train(detector, dataset, faces, features, out, config.train, config.seed, store)


@cli.command()
@dataset_option
@trained_option
@out_option
@stage
def ensemble(dataset: Path, trained: Sequence[Path], out: Path, config: UnmaskConfig) -> StageOutcome:
    """Calibrate the detectors and weigh them against each other, on the calib split."""
    from unmask.ensemble.ensemble_stage import run_ensemble

    return run_ensemble(dataset, trained, out, config.ensemble, config.seed)


@cli.command()
@dataset_option
@ensemble_option
@features_option
@out_option
@stage
def fuse(dataset: Path, ensemble: Path, features: Path, out: Path, config: UnmaskConfig) -> StageOutcome:
    """Join the ensemble's score and the forensic features to one calibrated probability, on the calib split.

    Also sets the operating points: the thresholds from which on a file is called fake.
    """
    from unmask.fusion.fuse_stage import run_fuse

    return run_fuse(dataset, ensemble, features, out, config.fusion, config.seed)


@cli.command()
@dataset_option
@faces_option
@features_option
@trained_option
@ensemble_option
@fusion_option
@out_option
@click.option("--out-report", type=FILE, help="Also copy report.html to this path.")
@click.option("--out-summary", type=FILE, help="Also copy summary.md to this path.")
@stage
def evaluate(
    out: Path, out_report: Path | None, out_summary: Path | None, config: UnmaskConfig, **inputs: Any
) -> StageOutcome:
    """Measure everything on the test split, with intervals, and write the report."""
    from unmask.evaluation.evaluate_stage import run_evaluate
    from unmask.schemas import write_atomically

    outcome = run_evaluate(**inputs, out=out, config=config.evaluate, seed=config.seed)
    for name, copy in (("report.html", out_report), ("summary.md", out_summary)):
        if copy is not None:
            with write_atomically(copy) as temporary:
                shutil.copyfile(out / name, temporary)
    return outcome


@cli.command()
@trained_option
@ensemble_option
@fusion_option
@features_option
@out_option
@stage
def bundle(out: Path, config: UnmaskConfig, **inputs: Any) -> StageOutcome:
    """Export all that scoring needs to one folder: ONNX, calibration, fusion, thresholds; no torch."""
    from unmask.deployment.bundle_stage import run_bundle

    return run_bundle(**inputs, extract_config=config.extract, out=out, config=config.bundle)


@cli.command()
@_folder_option("bundle", "Folder that `bundle` wrote.")
@_folder_option("evaluation", "Folder that `evaluate` wrote.")
@dataset_option
@features_option
@trained_option
@ensemble_option
@fusion_option
@click.option("--tracking-uri", default="", help="MLflow server or sqlite:/// URI.  [default: a file in .unmask]")
@out_option
@stage
def promote(tracking_uri: str, out: Path, config: UnmaskConfig, **inputs: Any) -> StageOutcome:
    """Log the run to MLflow, register the bundle, and give it its alias if the gate lets it pass."""
    from unmask.adapters.tracking import run_promote

    uri = tracking_uri or local_tracking_uri(DEFAULT_WORK)
    return run_promote(**inputs, tracking_uri=uri, out=out, config=config.promote)


def local_tracking_uri(work: Path) -> str:
    """Name the MLflow database of a work folder."""
    return f"sqlite:///{(work / 'mlflow.db').resolve()}"


# --- around the stages -----------------------------------------------------------------------------------------------


@cli.command()
@click.option("--out", required=True, type=FOLDER, help="Folder to write.")
@click.option("--videos", default=80, show_default=True, help="Number of clips, half of them fake.")
@click.option("--seed", default=42, show_default=True, help="Same seed, same bytes.")
def sample(out: Path, videos: int, seed: int) -> None:
    """Render a sample set of talking faces, real and fake, to try the pipeline on.

    The faces are drawn by a program: the set shows the way, not the accuracy.
    """
    from unmask.data.sampleset import generate

    for message in generate(out, videos, seed).messages:
        click.echo(message)


@cli.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--bundle",
    "bundle_folder",
    type=FOLDER,
    help="Folder that `bundle` wrote.  [default: .unmask/latest/bundle, from the last `unmask run`]",
)
@click.option("--model", help="Registered model instead of a folder, e.g. models:/unmask-detector@challenger.")
@click.option("--tracking-uri", default="", help="MLflow server or sqlite:/// URI for --model.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line instead of text.")
def score(
    files: Sequence[Path], bundle_folder: Path | None, model: str | None, tracking_uri: str, as_json: bool
) -> None:
    """Judge files: probability, verdict, and the evidence for it."""
    from unmask.deployment.runtime import Bundle
    from unmask.deployment.verdict import render_text

    if model and bundle_folder:
        raise InputError("Both --model and --bundle were given.", "Give one of them.")
    if model:
        from unmask.adapters.tracking import resolve_model

        bundle_folder = resolve_model(model, tracking_uri or local_tracking_uri(DEFAULT_WORK))
    bundle_folder = bundle_folder or DEFAULT_WORK / "latest" / "bundle"
    if not bundle_folder.is_dir():
        raise InputError(
            f"There is no bundle at {bundle_folder}.", "Run `make run` first, or give --bundle FOLDER or --model URI."
        )
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise InputError(f"No such file: {', '.join(missing)}.", "Check the path.")
    loaded = Bundle.load(bundle_folder)
    for file in files:
        verdict = loaded.score(file)
        click.echo(verdict.model_dump_json() if as_json else render_text(verdict))


@cli.command()
@click.argument("a", type=FOLDER)
@click.argument("b", type=FOLDER)
@out_option
@stage
def compare(a: Path, b: Path, out: Path, config: UnmaskConfig) -> StageOutcome:
    """Compare two runs on the same test samples: A and B are folders that `fuse` wrote.

    Says whether B is better than A, with the interval of the difference.
    """
    from unmask.evaluation.compare import run_compare

    return run_compare(a, b, out, config.evaluate, config.seed)


@cli.command()
def detectors() -> None:
    """List the detectors that `train` knows."""
    from unmask.detectors import names

    for name in names():
        click.echo(name)
    click.echo("timm:<any model of timm with an average-pooled backbone>")


@cli.group()
def config() -> None:
    """Write and check configuration files."""


@config.command("init")
@click.option("--out", type=FILE, help="File to write; standard output when left out.")
def config_init(out: Path | None) -> None:
    """Write every setting with its default and its meaning."""
    if out is None:
        click.echo(commented_defaults(), nl=False)
        return
    if out.exists():
        raise InputError(f"{out} exists.", "Choose another name, or remove it first.")
    out.write_text(commented_defaults(), encoding="utf-8")
    click.echo(f"Wrote {out}.")


@config.command("check")
@click.argument("file", type=FILE)
def config_check(file: Path) -> None:
    """Check a configuration file; all errors are reported together."""
    load_config(file)
    click.echo(f"{file} is valid.")


@cli.command()
@click.option(
    "--data",
    "sources",
    multiple=True,
    metavar="[NAME=]FOLDER",
    help="Folder with real/ and fake/ below it; a rendered sample set when left out.",
)
@click.option("--videos", default=80, show_default=True, help="Clips in the rendered sample set.")
@click.option("--work", default=DEFAULT_WORK, show_default=True, type=FOLDER, help="Folder for everything written.")
@click.option("--runner", type=click.Choice(["local", "docker"]), default="local", show_default=True)
@click.option("--config", "config_file", type=FILE, help="YAML file; see `unmask config init`.")
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="One setting, e.g. train.epochs=3.")
def run(
    sources: Sequence[str],
    videos: int,
    work: Path,
    runner: Literal["local", "docker"],
    config_file: Path | None,
    overrides: Sequence[str],
) -> None:
    """Run the whole pipeline on this machine: from media to a registered, explained detector.

    It is the same compiled pipeline that a cluster runs. Finished steps are not run again: a second run with nothing
    changed takes seconds, and a failed or killed one goes on where it stopped.
    """
    from unmask.adapters.local_run import run_on_this_machine

    resolved = load_config(config_file, overrides)
    click.echo(run_on_this_machine(_named_sources(sources), videos, work, runner, resolved))


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


if __name__ == "__main__":
    main()
