"""Detectors around a backbone of timm: pooled features, dropout, one linear unit."""

from __future__ import annotations

import difflib
import logging
from typing import Any

from torch import Tensor, nn

from unmask.detectors.base import IMAGENET_MEAN, IMAGENET_STD, Detector
from unmask.detectors.registry import register_family
from unmask.detectors.weights import imagenet_weights
from unmask.errors import InputError
from unmask.schemas import Preprocessing

logger = logging.getLogger(__name__)


def create_backbone(model: str, *, imagenet: bool, **options: Any) -> nn.Module:
    """Create a timm model without its classifier: ``(N, 3, S, S) -> (N, D)``.

    Args:
        model: Its name in timm.
        imagenet: Start from ImageNet weights: from the store of `unmask.detectors.weights`, or from the hub and its
            cache on this machine.
        options: Passed on to ``timm.create_model``.

    Returns:
        The model.

    Raises:
        InputError: timm has no such model, or the weights cannot be had.
    """
    import timm  # takes seconds to import, and half of the detectors need none of it

    if not timm.is_model(model.partition(".")[0]):
        close = difflib.get_close_matches(model, timm.list_models(), 3)
        hint = f"Did you mean {' or '.join(close)}?" if close else "`timm.list_models()` lists them."
        raise InputError(f"timm has no model called {model!r}.", hint)
    try:
        kept = imagenet_weights(model) if imagenet else None
        if kept is not None:
            options["pretrained_cfg_overlay"] = {"state_dict": kept}
        backbone: nn.Module = timm.create_model(model, pretrained=imagenet, num_classes=0, **options)
    except (OSError, RuntimeError, ValueError) as error:
        if not imagenet:
            raise InputError(f"timm cannot build {model}: {error}", "Choose another model or input size.") from error
        raise InputError(
            f"The ImageNet weights of {model} cannot be had: {str(error).splitlines()[0]}",
            "Connect to the internet once (they are cached), fill the store with `unmask detectors fetch` on a machine "
            "that is connected, set pretrained to a weight file that you have, or to none.",
        ) from error
    return backbone


class TimmDetector(Detector):
    """A timm backbone with a binary head.

    Args:
        model: Its name in timm.
        input_size_px: Side of the input; None is the size that the model was made for.
        imagenet: Start from ImageNet weights.
        mean: Of the preprocessing; None is the one of the pretrained weights.
        std: Of the preprocessing; None is the one of the pretrained weights.
        dropout: Before the linear unit.
    """

    pretrained_parts = ("backbone",)

    def __init__(
        self,
        model: str,
        *,
        input_size_px: int | None = None,
        imagenet: bool = False,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        dropout: float = 0.2,
    ) -> None:
        backbone = create_backbone(model, imagenet=imagenet)
        facts: dict[str, Any] = getattr(backbone, "pretrained_cfg", {})
        native_px = int(facts.get("input_size", (3, 224, 224))[-1])
        size_px = input_size_px or native_px
        if size_px != native_px and facts.get("fixed_input_size"):
            backbone = create_backbone(model, imagenet=imagenet, img_size=size_px)
        super().__init__(
            Preprocessing(
                size_px=size_px,
                mean=mean or facts.get("mean", IMAGENET_MEAN),
                std=std or facts.get("std", IMAGENET_STD),
            )
        )
        self.backbone = backbone
        n_features = int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)  # type: ignore[arg-type]
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(n_features, 1))

    def embed(self, x: Tensor) -> Tensor:
        """See the base; D is the pooled width of the backbone."""
        features: Tensor = self.backbone(x)
        return features


@register_family("timm")
def timm_detector(model: str, *, input_size_px: int | None, imagenet: bool) -> Detector:
    """Build ``timm:<model>``: any pooled backbone of timm, with the preprocessing of its pretrained weights."""
    return TimmDetector(model, input_size_px=input_size_px, imagenet=imagenet)
