"""Who is rendered: the proportions and colours of a face, drawn from a generator.

Lengths are in face units: the visible face is about 1.45 wide and 2.1 high, x points right, y down, and the origin
lies between the eyes and the nose tip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]

_SKIN: tuple[Colour, ...] = (
    (236, 200, 180),
    (228, 186, 160),
    (222, 176, 146),
    (205, 158, 126),
    (186, 136, 104),
    (158, 110, 82),
    (128, 86, 62),
    (104, 70, 52),
)
_HAIR: tuple[Colour, ...] = ((28, 24, 22), (52, 36, 28), (84, 58, 40), (122, 88, 58), (168, 132, 88), (120, 116, 112))
_IRIS: tuple[Colour, ...] = ((72, 46, 28), (96, 66, 38), (84, 92, 60), (88, 112, 132), (64, 84, 104))
HAIR_STYLES = ("short", "fringe", "long", "swept", "buzz")


@dataclass(frozen=True)
class Identity:
    """Everything that makes one person look like himself or herself.

    Attributes:
        skin: Skin colour, RGB 0 to 255.
        hair: Hair colour, RGB 0 to 255.
        iris: Iris colour, RGB 0 to 255.
        lips: Lip colour, RGB 0 to 255.
        hair_style: One of `HAIR_STYLES`.
        half_width: Half the width of the face at the cheeks.
        chin: y of the chin.
        jaw: Exponent of the jaw's outline; larger is squarer.
        eye_x: Half the distance between the eyes.
        eye_y: y of the eyes.
        eye_half_width: Half the width of an eye.
        eye_opening: Height of the upper lid over the eye's axis.
        eye_tilt: How much the outer corner is raised, radians.
        brow_lift: Gap between eye and brow.
        brow_thickness: Of the brow.
        brow_arch: Rise of the brow's middle.
        brow_density: Opacity of the brow's hairs, 0 to 1.
        nose_width: Half the distance of the nostril wings.
        nose_tip: y of the nose tip.
        nose_height: How far the tip stands out.
        mouth_y: y of the mouth line.
        mouth_half_width: Half the width of the closed mouth.
        upper_lip: Thickness.
        lower_lip: Thickness.
        cheekbones: How far they stand out.
        stubble: Darkness of the beard shadow, 0 to 1.
        age: 0 smooth, 1 wrinkled.
        freckles: 0 none, 1 many.
        lashes: Thickness of the lash line.
        voice_hz: Mean fundamental frequency of the voice.
        vocal_tract: Scale of the formant frequencies; small people have short tracts and a scale over 1.
        pulse_bpm: Heart rate.
        blinks_per_min: Blink rate.
        texture_seed: Seeds skin and hair texture.
    """

    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    hair_style: str
    half_width: float
    chin: float
    jaw: float
    eye_x: float
    eye_y: float
    eye_half_width: float
    eye_opening: float
    eye_tilt: float
    brow_lift: float
    brow_thickness: float
    brow_arch: float
    brow_density: float
    nose_width: float
    nose_tip: float
    nose_height: float
    mouth_y: float
    mouth_half_width: float
    upper_lip: float
    lower_lip: float
    cheekbones: float
    stubble: float
    age: float
    freckles: float
    lashes: float
    voice_hz: float
    vocal_tract: float
    pulse_bpm: float
    blinks_per_min: float
    texture_seed: int


def _between(low: Colour, high: Colour, share: float) -> NDArray[np.float64]:
    return np.asarray(low) * (1 - share) + np.asarray(high) * share


def _rgb(values: NDArray[np.float64]) -> Colour:
    red, green, blue = np.clip(values, 0, 255).tolist()
    return float(red), float(green), float(blue)


def draw_identity(rng: np.random.Generator) -> Identity:
    """Draw a person.

    Args:
        rng: The person depends on nothing else.

    Returns:
        The person.
    """
    deep = rng.random()  # low voice, stubble possible
    tone = rng.uniform(0, len(_SKIN) - 1.001)
    skin = _between(_SKIN[int(tone)], _SKIN[int(tone) + 1], tone % 1)
    skin = skin * rng.uniform(0.97, 1.03, 3)
    darkness = tone / (len(_SKIN) - 1)
    hair = np.asarray(_HAIR[int(rng.integers(0, 2 if darkness > 0.6 else len(_HAIR)))]) * rng.uniform(0.85, 1.15)
    iris = np.asarray(_IRIS[int(rng.integers(0, 2 if darkness > 0.5 else len(_IRIS)))]) * rng.uniform(0.85, 1.15)
    lips = _between(_rgb(skin * (0.86, 0.66, 0.64)), (168, 70, 74), 0.15 + 0.25 * (1 - deep) * rng.random())
    style = HAIR_STYLES[int(rng.integers(len(HAIR_STYLES)))]
    if deep > 0.6 and style == "long":
        style = "short"
    return Identity(
        skin=_rgb(skin),
        hair=_rgb(hair),
        iris=_rgb(iris),
        lips=_rgb(lips),
        hair_style=style,
        half_width=rng.uniform(0.69, 0.78),
        chin=rng.uniform(0.9, 1.02),
        jaw=rng.uniform(2.1, 2.4) + 0.5 * deep,
        eye_x=rng.uniform(0.29, 0.335),
        eye_y=rng.uniform(-0.15, -0.1),
        eye_half_width=rng.uniform(0.14, 0.165),
        eye_opening=rng.uniform(0.052, 0.072),
        eye_tilt=rng.uniform(-0.03, 0.14),
        brow_lift=rng.uniform(0.125, 0.165),
        brow_thickness=rng.uniform(0.022, 0.036) + 0.012 * deep,
        brow_arch=rng.uniform(0.015, 0.05),
        brow_density=rng.uniform(0.6, 0.95),
        nose_width=rng.uniform(0.12, 0.165),
        nose_tip=rng.uniform(0.26, 0.33),
        nose_height=rng.uniform(0.17, 0.26),
        mouth_y=rng.uniform(0.52, 0.58),
        mouth_half_width=rng.uniform(0.225, 0.285),
        upper_lip=rng.uniform(0.045, 0.07),
        lower_lip=rng.uniform(0.06, 0.09),
        cheekbones=rng.uniform(0.02, 0.06),
        stubble=max(0.0, deep - 0.5) * rng.uniform(0, 1.6),
        age=rng.beta(1.4, 2.0),
        freckles=max(0.0, rng.uniform(-0.6, 1)) * (1 - darkness),
        lashes=0.010 + 0.010 * (1 - deep),
        voice_hz=230 - 120 * deep + rng.uniform(-15, 15),
        vocal_tract=1.15 - 0.17 * deep + rng.uniform(-0.03, 0.03),
        pulse_bpm=rng.uniform(52, 98),
        blinks_per_min=rng.uniform(12, 26),
        texture_seed=int(rng.integers(2**31)),
    )
