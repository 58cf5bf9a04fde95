"""One small student in the place of the whole ensemble, as an option of `unmask bundle`."""

from __future__ import annotations

from pathlib import Path

from unmask.deployment.optimise import Recalibration, Trained, VariantRow, calibrate_anew, describe_form


def try_student(
    teacher: Trained, faces: Path, work: Path, recalibration: Recalibration
) -> tuple[Trained | None, VariantRow]:
    """Train a student on what the ensemble says, and take it if it loses little on val.

    Args:
        teacher: The ensemble.
        faces: Face crops of all splits.
        work: An empty folder for what lies in between; the answer points into it.
        recalibration: Student, bound and training, and what fitting calibration anew needs.

    Returns:
        The student, calibrated anew as an ensemble of one, or None when it loses too much; and its row of the table.

    Raises:
        InputError: The teacher has no word for the crops of train.
        ConfigError: The student cannot be built.
    """
    # Only a bundle that asks for a student needs the rooms for training.
    from unmask.deployment.distil_stage import DISTILLATION, DistillationInfo, run_distill
    from unmask.deployment.onnx_export import export_onnx
    from unmask.detectors import load_detector

    anew, folder = recalibration, work / "student"
    run_distill(
        anew.dataset, faces, anew.features, teacher.ensemble, folder, anew.distil, anew.training, anew.seed
    )  # fmt: skip
    judged = DistillationInfo.load(folder / DISTILLATION)
    detector, info = load_detector(folder)
    lost = "undefined" if judged.loss.value is None else f"{judged.loss.value:+.3f}"
    row = describe_form(
        judged.student,
        "student",
        export_onnx(detector, info.preprocessing),
        info.preprocessing,
        judged.student_auc,
        judged.loss,
        kept=judged.good_enough,
        reason=f"loses {lost} AUC on val against the ensemble; {judged.max_auc_loss:g} is allowed",
    )
    if not judged.good_enough:
        return None, row
    return calibrate_anew({judged.student: folder}, work, recalibration), row
