"""TensorBoard logs of a training, written while it runs."""

from __future__ import annotations

from pathlib import Path

from unmask.errors import MissingExtraError
from unmask.schemas import TrainingCurvePoint


class TensorBoardLog:
    """Writes each epoch as TensorBoard events.

    Args:
        folder: Of all logs; ``tensorboard --logdir`` takes it.
        run: Name of this training; a resumed one goes on in its own folder.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, run: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("train.tensorboard", "training") from error
        self._writer = SummaryWriter(str(folder / run))

    def __call__(self, point: TrainingCurvePoint) -> None:
        """Write an epoch, and make sure that it can be seen at once."""
        values = {
            "loss/train": point.train_loss,
            "loss/val": point.val_loss,
            "auc/val": point.val_auc,
            "learning_rate": point.learning_rate,
            "seconds": point.seconds,
        }
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, point.epoch)
        self._writer.flush()
