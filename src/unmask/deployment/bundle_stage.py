"""`unmask bundle`: everything that scoring needs in one folder, with a manifest of hashes."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask import __version__
from unmask.config import BundleConfig, ExtractConfig
from unmask.deployment.bundle import (
    ENSEMBLE,
    EXTRACT,
    FUSION,
    MANIFEST,
    OPTIMISATION,
    OPTIMISATION_PAGE,
    REFERENCE,
    TEST_SCORES_FILE,
    detector_document,
    feature_reference,
    file_safe,
)
from unmask.deployment.evidence import EVIDENCE, save_evidence
from unmask.deployment.example import EXAMPLE, save_example
from unmask.deployment.optimisation_page import render
from unmask.deployment.optimise import (
    OptimisationInfo,
    Recalibration,
    Trained,
    VariantRow,
    as_exported,
    compare_on_test,
    smaller_forms,
    wanted,
)
from unmask.deployment.student import try_student
from unmask.ensemble.apply import calibrated_logits
from unmask.errors import InputError
from unmask.media.preprocessing import decode_crop
from unmask.media.sound import window_samples
from unmask.schemas import (
    FACES,
    FEATURES,
    TEST_SCORES,
    WINDOWS,
    WINDOWS_FOLDER,
    DetectorInfo,
    EnsembleInfo,
    ExtractionInfo,
    FusionInfo,
    Manifest,
    StageOutcome,
    new_directory,
    read_table,
    sha256_file,
    write_atomically,
    write_table,
)

logger = logging.getLogger(__name__)

PROBE_SEED = 20
FACES_FOR_PARITY = 16


def run_bundle(
    trained: Sequence[Path],
    ensemble: Path,
    fusion: Path,
    features: Path,
    extract_config: ExtractConfig,
    out: Path,
    config: BundleConfig,
    faces: Path | None = None,
    evaluation: Path | None = None,
    recalibration: Recalibration | None = None,
) -> StageOutcome:
    """Write a bundle.

    Args:
        trained: Folders that `unmask train` wrote, in any order.
        ensemble: Folder with ``ensemble.json``.
        fusion: Folder with ``fusion.json``.
        features: Folder with ``features.parquet`` and ``extraction.json``.
        extract_config: The settings that the features were measured with; scoring uses the same.
        out: The folder to write.
        config: The tolerance of the numeric check, and what to make smaller.
        faces: Face crops that `unmask extract` wrote; when given, the numeric check uses some of them too. Making
            detectors smaller needs them.
        evaluation: Folder that `unmask evaluate` wrote; when given, the bundle carries how reliable it was on test.
        recalibration: What fitting ensemble and fusion anew needs, if detectors are to be made smaller.

    Returns:
        Sizes and the largest difference of probability between torch and ONNX.

    Raises:
        InputError: The parts do not belong together, an export does not answer like torch, or what making detectors
            smaller needs was not given.
        ContractError: A document or table breaks its schema.
    """
    folders = _folders_by_name(trained, EnsembleInfo.load(ensemble / "ensemble.json").detectors)
    given = Trained(folders, ensemble, fusion)
    extraction = ExtractionInfo.load(features / "extraction.json")
    _check_same_origin(_documents(given), extraction)
    if wanted(config) and (faces is None or recalibration is None):
        raise InputError(
            "Making detectors smaller needs the face crops and the data set.",
            "Give --faces and --dataset, or set bundle.quantise to none, bundle.prune to 0 and bundle.distil to false.",
        )
    with new_directory(out) as folder, tempfile.TemporaryDirectory(prefix="unmask-") as work:
        made = _make(given, faces, Path(work), config, recalibration)
        for row in made.rows:
            if row.variant != "float32":
                judged = "kept" if row.kept else "not kept"
                logger.info("bundle: %s, %s: %s, %s", row.detector, row.variant, judged, row.reason)
        info = OptimisationInfo(max_auc_loss=config.max_auc_loss, rows=made.rows)
        changed = made.trained is not given
        if changed and recalibration is not None:
            info, scores = compare_on_test(info, given, made.trained, recalibration)
            # Those of the run no longer describe what is served.
            write_table(folder / TEST_SCORES_FILE, scores, TEST_SCORES)
        if evaluation is not None:
            save_evidence(evaluation, folder, optimised=changed)
        _save_reference(features, [health.name for health in extraction.health], folder)
        with write_atomically(folder / EXTRACT) as temporary:
            temporary.write_text(extract_config.model_dump_json(indent=2) + "\n", encoding="utf-8")
        manifest = _save_detectors(made, folder, extraction)
        # Beside what the manifest names: times differ, and the same parts must give the same bundle.
        info.save(folder / OPTIMISATION)
        with write_atomically(folder / OPTIMISATION_PAGE) as temporary:
            temporary.write_text(render(info), encoding="utf-8")
    return _outcome(out, manifest)


@dataclass(frozen=True)
class _Made:
    """What the bundle will hold.

    Attributes:
        trained: Detectors, ensemble and fusion: those given, or others fitted anew.
        onnx: Detector to ONNX file.
        parity: Detector to largest difference of probability between torch and its export.
        rows: Every form that was tried.
    """

    trained: Trained
    onnx: Mapping[str, bytes]
    parity: Mapping[str, float]
    rows: list[VariantRow]


def _make(
    given: Trained,
    faces: Path | None,
    work: Path,
    config: BundleConfig,
    recalibration: Recalibration | None,
) -> _Made:
    """Export the detectors, or what was asked for in their place and is good enough."""
    used, rows = given, []
    onnx, parity = _export_all(given, config, faces)
    if config.distil and faces is not None and recalibration is not None:
        student, row = try_student(given, faces, work / "distilled", recalibration)
        rows += [
            each.model_copy(
                update={"kept": student is None, "reason": "replaced by the student" if student else each.reason}
            )
            for each in as_exported(onnx, given.folders)
        ]
        rows.append(row)
        if student is not None:
            used = student
            onnx, parity = _export_all(student, config, faces)
    if (config.quantise != "none" or config.prune > 0) and faces is not None and recalibration is not None:
        smaller, tried = smaller_forms(onnx, used, faces, work / "smaller", config, recalibration)
        rows += tried
        if smaller is not None:
            return _Made(smaller.trained, smaller.onnx, parity, rows)
    elif not rows:
        rows = as_exported(onnx, used.folders)
    return _Made(used, onnx, parity, rows)


def _documents(trained: Trained) -> dict[str, DetectorInfo]:
    return {name: DetectorInfo.load(folder / "detector.json") for name, folder in trained.folders.items()}


def _folders_by_name(trained: Sequence[Path], wanted: Sequence[str]) -> dict[str, Path]:
    """Match folders to the detectors of the ensemble, in its order."""
    found: dict[str, Path] = {}
    for folder in trained:
        name = DetectorInfo.load(folder / "detector.json").name
        if name in found:
            raise InputError(
                f"Detector {name} was given twice: {found[name]} and {folder}.", "Give --trained once each."
            )
        found[name] = folder
    missing = [name for name in wanted if name not in found]
    unknown = [name for name in found if name not in wanted]
    if missing or unknown:
        raise InputError(
            f"The ensemble joins {', '.join(wanted)}; --trained gives {', '.join(found) or 'nothing'}.",
            "Give --trained the same folders that `unmask ensemble` was given.",
        )
    return {name: found[name] for name in wanted}


def _check_same_origin(infos: Mapping[str, DetectorInfo], extraction: ExtractionInfo) -> None:
    for what in ("dataset_version", "extractor_version"):
        expected = getattr(extraction, what)
        other = {name: getattr(info, what) for name, info in infos.items() if getattr(info, what) != expected}
        if other:
            stated = ", ".join(f"{name} {value}" for name, value in other.items())
            raise InputError(
                f"The parts have different {what.replace('_', ' ')}s: features {expected}, {stated}.",
                "Run the stages again on one data set with one version of unmask.",
            )


def _file_names(detectors: Sequence[str]) -> dict[str, str]:
    names = {name: f"{file_safe(name)}.onnx" for name in detectors}
    taken = {ENSEMBLE, FUSION, EXTRACT, REFERENCE, EXAMPLE, EVIDENCE, OPTIMISATION, MANIFEST}
    documents = [detector_document(name) for name in names.values()]
    if len(set(names.values())) < len(names) or taken & set(documents):
        raise InputError(
            f"The detectors {', '.join(detectors)} would get the same file names.", "Give them names that differ more."
        )
    return names


def _export_all(
    trained: Trained, config: BundleConfig, faces: Path | None
) -> tuple[dict[str, bytes], dict[str, float]]:
    """Export all detectors; gives the files, and the largest difference of probability to torch."""
    # Only this part of the room needs torch; scoring imports the rest.
    from unmask.deployment.onnx_export import check_parity, export_onnx, parity, probe_images, probe_sounds
    from unmask.detectors import load_detector

    ensemble = EnsembleInfo.load(trained.ensemble / "ensemble.json")
    infos = _documents(trained)
    crops = _some_crops(faces) if faces is not None else []
    sounds = _some_sounds(faces) if faces is not None and _any_listens(infos) else []
    onnx, differences = {}, {}
    for name, folder in trained.folders.items():
        detector, info = load_detector(folder)
        onnx[name] = export_onnx(detector, info.preprocessing)
        rng = np.random.default_rng(PROBE_SEED)
        inputs: list[NDArray[Any]] = (
            [*probe_sounds(rng), *sounds] if detector.modality == "audio" else [*probe_images(rng), *crops]
        )
        calibrate = partial(_calibrated, ensemble, name)
        differences[name] = parity(detector, onnx[name], inputs, info.preprocessing, calibrate)
        check_parity(name, differences[name], config.parity_tolerance)
        logger.info("bundle: %s, %.1f MB, differs from torch by %.1e", name, len(onnx[name]) / 1e6, differences[name])
    return onnx, differences


def _calibrated(ensemble: EnsembleInfo, name: str, logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Calibrate logits ``(N,)`` of one detector of the ensemble."""
    position = ensemble.detectors.index(name)
    columns = np.full((len(logits), len(ensemble.detectors)), np.nan)
    columns[:, position] = logits
    return calibrated_logits(ensemble, columns)[:, position]


def _some_crops(faces: Path) -> list[NDArray[np.uint8]]:
    """Decode a few crops, evenly spaced over the table."""
    table = read_table(faces, FACES)
    count = min(FACES_FOR_PARITY, table.num_rows)
    rows: list[int] = np.unique(np.linspace(0, max(table.num_rows - 1, 0), count).astype(int)).tolist()
    return [decode_crop(memoryview(table.column("jpeg")[row].as_buffer())) for row in rows]


def _any_listens(infos: Mapping[str, DetectorInfo]) -> bool:
    return any(info.preprocessing.modality == "audio" for info in infos.values())


def _some_sounds(faces: Path) -> list[NDArray[np.int16]]:
    """Take a few windows of sound, of the first part of the table."""
    part = next(iter(sorted((faces / WINDOWS_FOLDER).glob("*.parquet"))), None)
    column = read_table(part, WINDOWS).column("pcm")[:FACES_FOR_PARITY] if part else []
    return [window_samples(one.as_py()) for one in column]


def _save_reference(features: Path, names: Sequence[str], folder: Path) -> None:
    frame = read_table(features / "features.parquet", FEATURES).to_pandas()
    rows = frame[(frame["split"] == "train") & (frame["status"] == "ok")]
    present = [name for name in names if name in frame.columns]
    feature_reference(rows, present).save(folder / REFERENCE)


def _save_detectors(made: _Made, folder: Path, extraction: ExtractionInfo) -> Manifest:
    """Write detectors, ensemble and fusion, and at the end the manifest of all that lies in the folder."""
    ensemble = EnsembleInfo.load(made.trained.ensemble / "ensemble.json")
    onnx_names = _file_names(ensemble.detectors)
    infos = _documents(made.trained)
    for name, file in onnx_names.items():
        infos[name].save(folder / detector_document(file))
        with write_atomically(folder / file) as temporary:
            temporary.write_bytes(made.onnx[name])
    ensemble.save(folder / ENSEMBLE)
    FusionInfo.load(made.trained.fusion / "fusion.json").save(folder / FUSION)
    preprocessing = {name: infos[name].preprocessing for name in onnx_names}
    # Whoever serves the bundle repeats these scores.
    save_example(folder, onnx_names, preprocessing)
    manifest = Manifest(
        unmask_version=__version__,
        detectors=list(ensemble.detectors),
        onnx=onnx_names,
        preprocessing=preprocessing,
        parity=dict(made.parity),
        files={path.name: sha256_file(path) for path in sorted(folder.iterdir())},
        dataset_version=extraction.dataset_version,
        extractor_version=extraction.extractor_version,
    )
    manifest.save(folder / MANIFEST)
    return manifest


def _outcome(out: Path, manifest: Manifest) -> StageOutcome:
    size = sum((out / name).stat().st_size for name in manifest.files)
    worst = max(manifest.parity.values())
    return StageOutcome(
        metrics={
            "bundle_mb": size / 1e6,
            "largest_onnx_difference": worst,
            "n_detectors": float(len(manifest.detectors)),
        },
        messages=(
            f"Bundle of {', '.join(manifest.detectors)}: {size / 1e6:.1f} MB in {out}; "
            f"ONNX answers like torch to {worst:.1e} in probability.",
        ),
    )
