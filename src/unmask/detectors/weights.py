"""Where pretrained weights come from: the timm hub, a store that keeps what came from there, and files anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import safetensors.torch
from torch import Tensor, nn

from unmask.objects import LocalMedia, MediaFiles, ObjectStore


@dataclass(frozen=True)
class WeightSource:
    """Where `unmask.detectors.build` looks for weights.

    Attributes:
        store: Keeps the ImageNet weights of the timm hub, so that machines without internet have them too; None keeps
            nothing.
        files: Gives weight files at paths and ``s3://`` addresses.
    """

    store: ObjectStore | None = None
    files: MediaFiles = field(default_factory=LocalMedia)


_SOURCE: ContextVar[WeightSource | None] = ContextVar("weights", default=None)


@contextmanager
def weights_from(source: WeightSource) -> Iterator[None]:
    """Take pretrained weights from there for the length of a block."""
    token = _SOURCE.set(source)
    try:
        yield
    finally:
        _SOURCE.reset(token)


def weight_source() -> WeightSource:
    """Where weights come from at present."""
    return _SOURCE.get() or WeightSource()


def imagenet_weights(model: str) -> dict[str, Tensor] | None:
    """Read the ImageNet weights of a timm model from the store; they are put there if they are not.

    Args:
        model: Its name in timm, with or without the tag of its weights.

    Returns:
        Name to tensor, with the classifier; None without a store, as timm then has its own cache on this machine.

    Raises:
        OSError: They are not in the store, and the hub cannot be reached.
        StorageError: The store cannot be reached.
    """
    store = weight_source().store
    if store is None:
        return None
    key = weights_key(model)
    if store.stat(key) is None:
        store.write(key, safetensors.torch.save(dict(_download(model).state_dict())))
    weights: dict[str, Tensor] = safetensors.torch.load(store.read(key))
    return weights


def weights_key(model: str) -> str:
    """Key in the store, for example ``pretrained/resnet50.a1_in1k.safetensors``."""
    import timm

    known = timm.get_pretrained_cfg(model, allow_unregistered=True)
    tag = known.tag if known is not None and known.tag else "default"
    return f"pretrained/{model.partition('.')[0]}.{tag}.safetensors"


def _download(model: str) -> nn.Module:
    import timm

    downloaded: nn.Module = timm.create_model(model, pretrained=True)
    return downloaded
