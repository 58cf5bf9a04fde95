"""What every detector is: a module that embeds a batch of crops or sounds and turns each embedding into one logit."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from unmask.schemas import AnyPreprocessing, DetectorModality

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
UNIT_RANGE = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
SYMMETRIC_RANGE = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Detector(nn.Module):
    """Base of all detectors.

    A subclass builds its layers in ``__init__`` and says in `embed` how a batch becomes embeddings; ``self.head``
    makes a logit of an embedding. Everything in it must be exportable to ONNX with a free batch axis.

    Args:
        preprocessing: How a crop, or a window of sound, becomes an input; saved beside the weights.

    Attributes:
        preprocessing: As above.
        architecture: Name in the registry; set by `unmask.detectors.build`.
        head: Module ``(N, D) -> (N, 1)``.
        pretrained_parts: Names of the modules that ImageNet weights fill; training may freeze these at first.
    """

    head: nn.Module
    pretrained_parts: tuple[str, ...] = ()

    def __init__(self, preprocessing: AnyPreprocessing) -> None:
        super().__init__()
        self.preprocessing: AnyPreprocessing = preprocessing
        self.architecture = ""

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """Embed a batch.

        Args:
            x: Preprocessed crops ``(N, 3, S, S)`` or windows of sound ``(N, L)``, float32.

        Returns:
            Embeddings ``(N, D)``.
        """

    def forward(self, x: Tensor) -> Tensor:
        """Score a batch.

        Args:
            x: Preprocessed crops ``(N, 3, S, S)`` or windows of sound ``(N, L)``, float32.

        Returns:
            Logits ``(N,)``; larger means more fake.
        """
        logits: Tensor = self.head(self.embed(x))
        return logits.squeeze(1)

    def project(self) -> None:
        """Bring constrained weights back to their constraint; the trainer calls this after every optimiser step."""

    @property
    def modality(self) -> DetectorModality:
        """Whether it looks at faces or listens."""
        return self.preprocessing.modality

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
