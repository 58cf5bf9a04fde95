"""One subcommand a stage: the same by hand, in a container and in the local run."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from unmask.cli.options import (
    FILE,
    FOLDER,
    dataset_option,
    ensemble_option,
    faces_option,
    features_option,
    fusion_option,
    local_tracking_uri,
    named_sources,
    opened,
    out_option,
    source_option,
    stage,
    store_option,
    trained_option,
)
from unmask.cli.registry import by_option, promote_registered, tracking_option, why_option
from unmask.cli.root import DEFAULT_WORK, cli
from unmask.config import UnmaskConfig
from unmask.errors import InputError
from unmask.schemas import StageOutcome


@cli.command()
@source_option
@out_option
@store_option
@click.option(
    "--media-store",
    default="",
    metavar="FOLDER|s3://…",
    help="Keeps each usable file once, under its hash; the table then refers to it.  [default: storage.media]",
)
@click.option("--normalise", is_flag=True, help="Bring both classes into one format: size, rate, length, codec, level.")
@click.option(
    "--normalised-out", default="", metavar="FOLDER|s3://…", help="Where these files go.  [default: --media-store]"
)
@click.option(
    "--inspected",
    multiple=True,
    type=FOLDER,
    metavar="PART",
    help="Folder that `inspect` wrote, once for each shard; the files are then not read again.",
)
@stage
def ingest(
    sources: Sequence[str],
    out: Path,
    store: str,
    media_store: str,
    normalise: bool,
    normalised_out: str,
    inspected: Sequence[Path],
    config: UnmaskConfig,
) -> StageOutcome:
    """Find, check and split media: folders of files become a table of samples.

    Every file is probed; what cannot be used becomes a row with a reason. Files that share a source video or an
    identity stay in one split, so that no later figure rests on a leak.
    """
    from unmask.adapters.object_store import open_media
    from unmask.data.ingest_stage import run_ingest

    media_place = media_store or config.storage.media
    if normalise and not (normalised_out or media_place):
        raise InputError("There is no place for normalised files.", "Give --normalised-out FOLDER.")
    return run_ingest(
        named_sources(sources, config, store),
        out,
        config.ingest,
        config.seed,
        opened(store, config),
        media=open_media(config.storage),
        media_store=opened(media_place, config),
        normalised=opened(normalised_out or media_place, config) if normalise else None,
        parts=inspected,
    )


@cli.command()
@dataset_option
@click.option("--out-faces", required=True, type=FOLDER, help="Folder for the face crops.")
@click.option("--out-features", required=True, type=FOLDER, help="Folder for the feature table and its health page.")
@store_option
@click.option("--no-resume", is_flag=True, help="Measure everything anew, whatever the store holds.")
@click.option("--limit", type=click.IntRange(min=1), help="Measure only so many files, of each split and class alike.")
@click.option("--shard", default="", metavar="I/N", help="Measure only part I of N; merge with `merge-extract`.")
@stage
def extract(
    dataset: Path,
    out_faces: Path,
    out_features: Path,
    store: str,
    no_resume: bool,
    limit: int | None,
    shard: str,
    config: UnmaskConfig,
) -> StageOutcome:
    """Decode each file once: face crops and forensic features.

    What cannot be measured is null with a reason. With --store, files measured before are not measured again. Stops
    when the health of a feature is critical.
    """
    from unmask.adapters.object_store import open_media
    from unmask.features.extract_stage import run_extract
    from unmask.schemas import Shard

    return run_extract(
        dataset,
        out_faces,
        out_features,
        config.extract,
        opened(store, config),
        open_media(config.storage),
        limit=limit,
        shard=Shard.parse(shard) if shard else None,
        resume=not no_resume,
    )


@cli.command()
@click.option("--detector", required=True, help="Name of the detector, e.g. meso4 or timm:resnet10t.")
@dataset_option
@faces_option
@features_option
@out_option
@store_option
@click.option(
    "--tracking-uri",
    default="",
    help="MLflow server or sqlite:/// URI: the training is logged there while it runs.  [default: files only]",
)
@stage
def train(
    detector: str,
    dataset: Path,
    faces: Path,
    features: Path,
    out: Path,
    store: str,
    tracking_uri: str,
    config: UnmaskConfig,
) -> StageOutcome:
    """Train one detector on the train split; the checkpoint is chosen on val.

    With --store, a killed training goes on from its last checkpoint and ends with the same weights. A tracking server
    that is away is tried again, and never stops a training.
    """
    from unmask.adapters.object_store import open_media
    from unmask.training.parallel import is_follower, processes_wanted, start_processes
    from unmask.training.train_stage import run_train

    context = click.get_current_context()
    number = processes_wanted(config.train.resolved_for(detector))
    if number > 1:  # the first of them reports and writes; this process only waits
        context.exit(start_processes(number, ["unmask.cli", *sys.argv[1:]]))
    log = None
    if tracking_uri and not is_follower():
        from unmask.adapters.live_run import LiveRun

        log = LiveRun(tracking_uri, config.promote.experiment)
    outcome = run_train(
        detector,
        dataset,
        faces,
        features,
        out,
        config.train,
        config.seed,
        opened(store, config),
        log,
        open_media(config.storage),
    )
    if is_follower():
        context.exit()
    return outcome


@cli.command()
@dataset_option
@trained_option
@click.option(
    "--reweigh",
    type=FOLDER,
    help="Folder that `ensemble` wrote before: keep its calibrations and only weigh anew, from the scores stored there "
    "unless --trained is given.",
)
@out_option
@stage
def ensemble(
    dataset: Path, trained: Sequence[Path], reweigh: Path | None, out: Path, config: UnmaskConfig
) -> StageOutcome:
    """Calibrate the detectors and weigh them against each other, on the calib split."""
    from unmask.ensemble.ensemble_stage import run_ensemble

    return run_ensemble(dataset, trained, out, config.ensemble, config.seed, reweigh)


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
@click.option("--cross", type=FOLDER, help="Folder that `cross-dataset` wrote, to show its matrix in the report.")
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
@click.option("--dataset", type=FOLDER, help="Folder that `ingest` wrote; needed to make detectors smaller.")
@click.option("--faces", type=FOLDER, help="Face crops that `extract` wrote; needed to make detectors smaller.")
@click.option("--evaluation", type=FOLDER, help="Folder that `evaluate` wrote: how reliable it is travels along.")
@out_option
@click.option("--out-sizes", type=FILE, help="Also copy optimisation.html to this path.")
@stage
def bundle(
    dataset: Path | None, out: Path, out_sizes: Path | None, config: UnmaskConfig, **inputs: Any
) -> StageOutcome:
    """Export all that scoring needs to one folder: ONNX, calibration, fusion, thresholds; no torch.

    With bundle.quantise or bundle.prune, detectors are made smaller, and with bundle.distil one student takes the
    place of all, if they lose little by it. optimisation.html shows size, time and AUC of every form.
    """
    from unmask.deployment.bundle import OPTIMISATION_PAGE
    from unmask.deployment.bundle_stage import run_bundle
    from unmask.deployment.optimise import Recalibration
    from unmask.schemas import write_atomically

    anew = (
        Recalibration(
            dataset, inputs["features"], config.ensemble, config.fusion, config.seed, config.distill, config.train
        )
        if dataset
        else None
    )
    outcome = run_bundle(**inputs, extract_config=config.extract, out=out, config=config.bundle, recalibration=anew)
    if out_sizes is not None:
        with write_atomically(out_sizes) as temporary:
            shutil.copyfile(out / OPTIMISATION_PAGE, temporary)
    return outcome


def _given(required: Mapping[str, Path | None]) -> dict[str, Path]:
    """Ask for the folders that only one form of a command needs."""
    missing = [f"--{name}" for name, folder in required.items() if folder is None]
    if missing:
        raise click.UsageError(f"Missing option {', '.join(missing)}; or give --version N alone.")
    return {name: folder for name, folder in required.items() if folder is not None}


@cli.command()
@click.option("--bundle", type=FOLDER, help="Folder that `bundle` wrote.")
@click.option("--evaluation", type=FOLDER, help="Folder that `evaluate` wrote.")
@click.option("--dataset", type=FOLDER, help="Folder that `ingest` wrote.")
@click.option("--faces", type=FOLDER, help="Face crops that `extract` wrote, to score the champion on them.")
@click.option("--features", type=FOLDER, help="Features that `extract` wrote.")
@trained_option
@click.option("--ensemble", type=FOLDER, help="Folder that `ensemble` wrote.")
@click.option("--fusion", type=FOLDER, help="Folder that `fuse` wrote.")
@click.option("--out", type=FOLDER, help="Folder for the decision; appears only when the stage has succeeded.")
@click.option("--version", metavar="N", help="Make this registered version champion; needs no folder.")
@click.option("--overrule", is_flag=True, help="With --version: also against the gate; needs --why.")
@why_option
@by_option
@tracking_option
@stage
def promote(
    version: str | None,
    overrule: bool,
    why: str,
    by: str,
    tracking_uri: str,
    trained: Sequence[Path],
    faces: Path | None,
    config: UnmaskConfig,
    **folders: Path | None,
) -> StageOutcome:
    """Log the run to MLflow, register the bundle, and give it the alias that the gate allows.

    With --version N instead of folders, make a registered version the champion.
    """
    if version:
        return promote_registered(version, tracking_uri, config.promote, why, by, overrule)
    from unmask.adapters.tracking import run_promote

    uri = tracking_uri or local_tracking_uri(DEFAULT_WORK)
    outcome = run_promote(**_given(folders), trained=trained, faces=faces, tracking_uri=uri, config=config.promote)
    dataset, features, out = folders["dataset"], folders["features"], folders["out"]
    if dataset and features and out:
        from unmask.adapters.reference import attach_reference

        attach_reference(out, dataset, features)
    return outcome
