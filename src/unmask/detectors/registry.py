"""The registry of detectors: names to what builds them.

To add a detector of your own, put one file into this folder:

    from unmask.detectors.base import Detector
    from unmask.detectors.registry import register

    @register("my_detector", input_size_px=224)
    class MyDetector(Detector):
        def __init__(self, input_size_px: int, imagenet: bool) -> None: ...
        def embed(self, x: Tensor) -> Tensor: ...

`unmask train --detector my_detector` finds it; the tests of tests/detectors run over it without a change. A detector of
sound is registered with `register_audio` and takes ``n_samples``.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from unmask.detectors.base import Detector
from unmask.detectors.weights import weight_source
from unmask.errors import ConfigError, InputError
from unmask.media.sound import WINDOW_SAMPLES
from unmask.schemas import DetectorModality


class Builder(Protocol):
    """What `register` decorates: a class or function that makes an untrained or ImageNet-initialised detector."""

    def __call__(self, *, input_size_px: int, imagenet: bool) -> Detector:
        """Build the detector for square inputs of ``input_size_px``."""


class AudioBuilder(Protocol):
    """What `register_audio` decorates: a class or function that makes an untrained detector of sound."""

    def __call__(self, *, n_samples: int) -> Detector:
        """Build the detector for windows of ``n_samples``."""


class FamilyBuilder(Protocol):
    """What `register_family` decorates: makes any model of a library from its name."""

    def __call__(self, model: str, *, input_size_px: int | None, imagenet: bool) -> Detector:
        """Build the detector around the model of that name."""


@dataclass(frozen=True)
class Entry:
    """One registered detector.

    Attributes:
        builder: Makes it.
        input_size_px: Its own input side.
        imagenet: Whether ImageNet weights exist for it.
    """

    builder: Builder
    input_size_px: int
    imagenet: bool


_ENTRIES: dict[str, Entry] = {}
_AUDIO: dict[str, AudioBuilder] = {}
_FAMILIES: dict[str, FamilyBuilder] = {}
BuilderT = TypeVar("BuilderT", bound=Builder)
AudioT = TypeVar("AudioT", bound=AudioBuilder)
FamilyT = TypeVar("FamilyT", bound=FamilyBuilder)


def register(name: str, *, input_size_px: int, imagenet: bool = False) -> Callable[[BuilderT], BuilderT]:
    """Register a detector under a name.

    Args:
        name: What users write, for example ``meso4``.
        input_size_px: Side of the square input when the user names none.
        imagenet: Whether the builder can start from ImageNet weights.

    Returns:
        Decorator for the class or function that builds it.

    Raises:
        ValueError: The name is taken or holds a colon.
    """
    _refuse_taken(name)

    def decorate(builder: BuilderT) -> BuilderT:
        _ENTRIES[name] = Entry(builder, input_size_px, imagenet)
        return builder

    return decorate


def _refuse_taken(name: str) -> None:
    if name in _ENTRIES or name in _AUDIO or ":" in name:
        raise ValueError(f"detector name {name!r} is taken or holds a colon")


def register_audio(name: str) -> Callable[[AudioT], AudioT]:
    """Register a detector of sound under a name.

    Args:
        name: What users write, for example ``aasist_l``.

    Returns:
        Decorator for the class or function that builds it.

    Raises:
        ValueError: The name is taken or holds a colon.
    """
    _refuse_taken(name)

    def decorate(builder: AudioT) -> AudioT:
        _AUDIO[name] = builder
        return builder

    return decorate


def register_family(prefix: str) -> Callable[[FamilyT], FamilyT]:
    """Register a whole family of detectors, written ``prefix:model``.

    Args:
        prefix: The part before the colon.

    Returns:
        Decorator for the function that builds a member from the part behind the colon.
    """

    def decorate(builder: FamilyT) -> FamilyT:
        _FAMILIES[prefix] = builder
        return builder

    return decorate


@functools.cache
def _discover() -> None:
    """Import every module of this package once, so that their decorators run."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{package}.{module.name}")


def names() -> list[str]:
    """Return the names of all registered detectors, sorted; families such as ``timm:…`` are not listed."""
    _discover()
    return sorted([*_ENTRIES, *_AUDIO])


def modality_of(name: str) -> DetectorModality:
    """Tell what a detector looks at, without building it.

    Args:
        name: A registered name, or ``timm:<model>``.

    Returns:
        ``face`` or ``audio``.
    """
    _discover()
    return "audio" if name in _AUDIO else "face"


def build(
    name: str, *, pretrained: str = "none", input_size_px: int | None = None, n_samples: int = WINDOW_SAMPLES
) -> Detector:
    """Build a detector.

    Args:
        name: A registered name, or ``timm:<model>``.
        pretrained: ``none``, ``imagenet`` (fetched from the timm hub, or taken from its cache), or the path or
            ``s3://`` address of a weight file: safetensors, or a foreign PyTorch checkpoint, of which only tensors are
            read. See `unmask.detectors.weights`.
        input_size_px: Side of the square input; None is the detector's own. Detectors of sound have none.
        n_samples: Length of the input of a detector of sound.

    Returns:
        The detector, in training mode, on the CPU. Weights are drawn from torch's global generator.

    Raises:
        InputError: No such detector; or the weights cannot be had or do not fit.
        ConfigError: The detector cannot take this input size, or has no ImageNet weights.
    """
    _discover()
    imagenet = pretrained == "imagenet"
    family, colon, model = name.partition(":")
    if colon and family in _FAMILIES and model:
        detector = _FAMILIES[family](model, input_size_px=input_size_px, imagenet=imagenet)
    elif imagenet and (name in _AUDIO or (name in _ENTRIES and not _ENTRIES[name].imagenet)):
        raise ConfigError(f"There are no ImageNet weights for {name}.", "Use pretrained: none, or a weight file.")
    elif name in _AUDIO:
        detector = _AUDIO[name](n_samples=n_samples)
    elif name in _ENTRIES:
        entry = _ENTRIES[name]
        detector = entry.builder(input_size_px=input_size_px or entry.input_size_px, imagenet=imagenet)
    else:
        raise _unknown(name)
    detector.architecture = name
    if pretrained not in ("none", "imagenet"):
        from unmask.detectors.storage import load_weights

        with weight_source().files.local(pretrained) as path:
            load_weights(detector, path)
    return detector


def _unknown(name: str) -> InputError:
    close = difflib.get_close_matches(name, names(), 1)
    hint = f"Did you mean {close[0]}? " if close else ""
    listed = ", ".join([*names(), *(f"{family}:<model>" for family in sorted(_FAMILIES))])
    return InputError(f"There is no detector called {name!r}.", f"{hint}Detectors are: {listed}.")
