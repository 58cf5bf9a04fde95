"""The one list of features: what each means, how it is measured, and what it must not be mistaken for.

Extraction, training, the health report, the explanations of a verdict and the documentation read it from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Direction = Literal["higher_fake", "higher_real", "none"]

EXTRACTOR_VERSION = "4"
"""Counts up whenever a feature, a crop, a window of sound or the face tracker is another for the same bytes."""

NULL_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "audio": "An audio file has no picture.",
        "single_image": "One picture has no course in time.",
        "no_face": "No face was found.",
        "small_face": "The face has too few pixels.",
        "not_frontal": "The face is turned away for too much of the clip.",
        "too_short": "The clip, or the part of it with a usable face, is too short.",
        "too_slow": "The clip has too few frames a second.",
        "too_small": "The picture has too few pixels.",
        "static": "Nothing moves, so that what is looked for cannot be told from the scene itself.",
        "flat": "The picture has no structure.",
        "dark": "The region is too dark or over-exposed.",
        "undefined": "The measurement gives no finite number here.",
        "not_applicable": "The coding of the file leaves nothing to measure.",
    }
)
"""Why a feature may be null: code to sentence."""


@dataclass(frozen=True)
class FeatureSpec:
    """One feature.

    Attributes:
        name: ``family.name``, the column in the table ``features``.
        family: quality, wm, forensics, face, art or temp.
        title: A few words for a reader.
        meaning: What a high and a low value mean, in a sentence.
        unit: Unit, or what the number is.
        low: Lowest value that can occur, or that is believable.
        high: Highest such value.
        direction: Which way fakes are expected to differ; none for a covariate of quality.
        method: How it is measured.
        citation: Where the method is published.
        bias: What else moves the value; who is measured wrongly.
        nulls: Codes of `NULL_REASONS` that it may have.
        modalities: For which it exists.
        if_constant: What it means, and what to do, when all clips have the same value.
    """

    name: str
    family: str
    title: str
    meaning: str
    unit: str
    low: float
    high: float
    direction: Direction
    method: str
    citation: str
    bias: str
    nulls: tuple[str, ...]
    modalities: tuple[str, ...] = ("video",)
    if_constant: str = "Look whether the clips are copies of one another."


_ALL = ("video", "image")

_SPECS = (
    FeatureSpec(
        name="quality.blur",
        family="quality",
        title="Sharpness",
        meaning="High is sharp, low is blurred.",
        unit="log10 of grey levels squared",
        low=-1.0,
        high=5.0,
        direction="none",
        method="Variance of the Laplacian of luma at a shorter side of 360 px (smaller pictures as they are); median.",
        citation="Pech-Pacheco et al. 2000, Diatom autofocusing in brightfield microscopy, ICPR",
        bias="A covariate of quality: focus, compression and resolution move it; match them across classes.",
        nulls=("too_small",),
        modalities=_ALL,
    ),
    FeatureSpec(
        name="quality.brisque",
        family="quality",
        title="Unnaturalness",
        meaning="High is noisy, blurred or strongly compressed; low is like an undistorted photograph.",
        unit="opinion score, about 0 to 100",
        low=-50.0,
        high=200.0,
        direction="none",
        method="BRISQUE: 36 statistics of normalised luma at 384 px and half of it, regressor of LIVE; median of 4.",
        citation="Mittal, Moorthy & Bovik 2012, No-reference image quality assessment, IEEE TIP 21(12)",
        bias="A covariate of quality: drawn or rendered pictures score badly; match compression across classes.",
        nulls=("flat", "too_small"),
        modalities=_ALL,
    ),
    FeatureSpec(
        name="quality.bitrate",
        family="quality",
        title="Bits per pixel",
        meaning="High is lightly compressed, low is strongly compressed.",
        unit="log2 of bits per pixel and frame",
        low=-16.0,
        high=6.0,
        direction="none",
        method="Coded bytes of the video stream (of the file, for an image) over width, height and frames.",
        citation="ITU-T H.264 (2003), coded size; no detector of forgery by itself",
        bias="A covariate of quality: the encoder, not the content, decides; match compression across classes.",
        nulls=(),
        modalities=_ALL,
    ),
    FeatureSpec(
        name="quality.shake",
        family="quality",
        title="Camera shake",
        meaning="High is a trembling camera, 0 is a tripod.",
        unit="% of the picture's diagonal, RMS",
        low=0.0,
        high=5.0,
        direction="none",
        method="Phase correlation at 12 to 24 Hz and 96 to 191 px; the path minus its mean over one second.",
        citation="Kuglin & Hines 1975, The phase correlation image alignment method, IEEE Cybernetics and Society",
        bias="A covariate of the scene; large moving objects count as shake.",
        nulls=("single_image", "too_short", "too_small"),
    ),
    FeatureSpec(
        name="wm.detected",
        family="wm",
        title="Overlay in a corner",
        meaning="High when a corner carries edges that stay while the picture behind them moves.",
        unit="share of the corner's pixels with such an edge",
        low=0.0,
        high=1.0,
        direction="higher_fake",
        method="Agreement of gradient vectors over evenly spaced frames at 270 px; the most marked of four corners.",
        citation="Dekel et al. 2017, On the effectiveness of visible watermarks, CVPR",
        bias="Logos of TV stations, subtitles and time stamps count as well; null when the camera stands still.",
        nulls=("single_image", "static", "too_short", "too_small"),
        if_constant="No overlay in any clip is what camera footage is like: nothing to do. Other features decide.",
    ),
    FeatureSpec(
        name="forensics.prnu",
        family="forensics",
        title="Sensor noise",
        meaning="High when the same fixed noise pattern lies under all frames, as a sensor leaves it.",
        unit="normalised correlation",
        low=-1.0,
        high=1.0,
        direction="higher_real",
        method="Wavelet Wiener residuals of evenly spaced frames, weighted by luma; correlation of the two halves.",
        citation="Lukáš, Fridrich & Goljan 2006, IEEE TIFS 1(2); Chen et al. 2008, IEEE TIFS 3(1)",
        bias="Stabilisation and strong compression destroy it. Null on still scenes, where scene and noise look alike.",
        nulls=("single_image", "static", "too_short", "too_small"),
    ),
    FeatureSpec(
        name="forensics.flicker",
        family="forensics",
        title="Flicker of the face",
        meaning="High when the face's brightness jumps from frame to frame and the rest of the picture does not.",
        unit="% of the face's luma, standard deviation",
        low=0.0,
        high=20.0,
        direction="higher_fake",
        method="Second difference in time of the mean luma of cheeks and forehead, less what the surroundings share.",
        citation="Pandel 2008, Measuring of flickering artifacts in predictive coded video sequences, WIAMIS",
        bias="Screens, flashes and fast head turns that light the face alone raise it.",
        nulls=("dark", "no_face", "single_image", "small_face", "too_short", "too_slow"),
    ),
    FeatureSpec(
        name="forensics.codec",
        family="forensics",
        title="Traces of an earlier compression",
        meaning="High when a video or a JPEG was compressed before it was compressed as it is now.",
        unit="videos: strongest rhythm, standard scores; JPEG: log2 of a ratio of roughness",
        low=-5.0,
        high=60.0,
        direction="none",
        method="Excess size of P and B frames at periods of 9 to 100; JPEG: clumps in histograms of DCT coefficients.",
        citation="Stamm, Lin & Liu 2012, IEEE TIFS 7(4); Lukáš & Fridrich 2003, DFRWS; Popescu & Farid 2004, IH",
        bias="Whatever went through a platform was compressed twice, real or fake: match compression across classes.",
        nulls=("not_applicable", "too_short", "too_small"),
        modalities=_ALL,
    ),
    FeatureSpec(
        name="face.mouth_exag",
        family="face",
        title="Widest mouth opening",
        meaning="High when the mouth opens very wide.",
        unit="inner lip height over width, 95th percentile",
        low=0.0,
        high=2.0,
        direction="none",
        method="Mouth aspect ratio of FaceMesh landmarks on frontal frames.",
        citation="Soukupová & Čech 2016 (aspect ratio, there of the eye), CVWW; Agarwal et al. 2020, CVPRW",
        bias="What is said, singing and laughing move it.",
        nulls=("no_face", "not_frontal", "small_face", "too_short"),
        modalities=_ALL,
    ),
    FeatureSpec(
        name="face.mouth_static",
        family="face",
        title="Still mouth",
        meaning="1 when the mouth never moves, 0 when it moves all the time.",
        unit="share of seconds without movement",
        low=0.0,
        high=1.0,
        direction="higher_fake",
        method="Share of one-second windows whose inner-lip aspect ratio stays within 0.04.",
        citation="Agarwal et al. 2020, Detecting deep-fake videos from phoneme-viseme mismatches, CVPRW",
        bias="People who listen, and do not speak, look still.",
        if_constant="Everyone speaks all the time (0) or nobody does (1): add clips of the other kind.",
        nulls=("no_face", "not_frontal", "single_image", "small_face", "too_short", "too_slow"),
    ),
    FeatureSpec(
        name="face.eye_blink",
        family="face",
        title="Blinks",
        meaning="People blink about 10 to 30 times a minute; far fewer or more is odd.",
        unit="blinks per minute",
        low=0.0,
        high=120.0,
        direction="none",
        method="Eye aspect ratio of the nearer eye, frontal frames; dips of 50 to 600 ms below 0.72 of the open eye's.",
        citation="Soukupová & Čech 2016, Real-time eye blink detection, CVWW; Li et al. 2018, In ictu oculi, WIFS",
        bias="Glasses, narrow eyes and looking down hide blinks or feign them.",
        if_constant="If it is 0, the clips are too short to hold a blink: give clips of ten seconds and more.",
        nulls=("no_face", "not_frontal", "single_image", "small_face", "too_short", "too_slow"),
    ),
    FeatureSpec(
        name="face.sym_drift",
        family="face",
        title="Drift of asymmetry",
        meaning="High when the two halves of the face change against each other over time.",
        unit="% of the face's size, standard deviation",
        low=0.0,
        high=20.0,
        direction="higher_fake",
        method="Procrustes distance of 3D landmarks to their own mirror image, less what goes with yaw and pitch.",
        citation="Klingenberg et al. 2002, Shape analysis of symmetric structures, Evolution 56(10)",
        bias="One-sided expressions (a wink, a lopsided smile) and hands before the face raise it.",
        nulls=("no_face", "not_frontal", "single_image", "small_face", "too_short"),
    ),
    FeatureSpec(
        name="art.edge",
        family="art",
        title="Edge along the face's outline",
        meaning="High when there is a border along the outline of the face, as blending leaves it.",
        unit="log2 of a ratio of gradients",
        low=-6.0,
        high=6.0,
        direction="higher_fake",
        method="Mean Sobel gradient in a band along the face oval over that inside and outside of it.",
        citation="Matern et al. 2019, Exploiting visual artifacts, WACVW; Li et al. 2020, Face X-ray, CVPR",
        bias="Beards, hair lines, glasses and strong side light are edges as well.",
        nulls=("no_face", "small_face"),
        modalities=_ALL,
    ),
    FeatureSpec(
        name="art.texture",
        family="art",
        title="Texture of the skin",
        meaning="High is rich fine texture, low is smooth.",
        unit="bits of entropy",
        low=0.0,
        high=8.0,
        direction="higher_real",
        method="Entropy of local binary patterns (8 neighbours) inside the face at a side of 128 px.",
        citation="Ojala et al. 2002, Multiresolution gray-scale texture classification with LBP, IEEE TPAMI 24(7)",
        bias="A covariate of quality too: compression, make-up and beauty filters smooth; noise roughens.",
        nulls=("no_face", "small_face"),
        modalities=_ALL,
    ),
    FeatureSpec(
        name="art.color",
        family="art",
        title="Colour step at the face's outline",
        meaning="High when the colour of the face differs from that of what surrounds it.",
        unit="CIELAB a*b* distance",
        low=0.0,
        high=150.0,
        direction="higher_fake",
        method="Distance of the median chroma inside the face and in a ring around it.",
        citation="Li et al. 2020, Deep network generated images and disparities in color components, Signal Processing",
        bias="Depends on skin tone, light, hair and background.",
        nulls=("dark", "no_face", "small_face"),
        modalities=_ALL,
    ),
    FeatureSpec(
        name="art.freq",
        family="art",
        title="Slope of the spectrum",
        meaning="Natural pictures fall steeply towards high frequencies; generators bend or flatten the fall.",
        unit="exponent of power over frequency",
        low=-15.0,
        high=2.0,
        direction="none",
        method="Azimuthally averaged power spectrum of the face at the file's own resolution, 0.1 to 0.45 cycles/px.",
        citation="Durall et al. 2020, Watch your up-convolution, CVPR",
        bias="A covariate of quality: sharpening and compression move it, and resolution: by 4 from 720 to 1080 lines.",
        nulls=("no_face", "small_face"),
        modalities=_ALL,
    ),
    FeatureSpec(
        name="temp.flow_oddity",
        family="temp",
        title="Odd movement of the face",
        meaning="High when the face moves less predictably from frame to frame than what surrounds it.",
        unit="log2 of a ratio of errors",
        low=-8.0,
        high=8.0,
        direction="higher_fake",
        method="Next frame predicted by DIS optical flow at 270 px; error in the face over that in a ring around it.",
        citation="Kroeger et al. 2016, Fast optical flow using dense inverse search, ECCV; Amerini et al. 2019, ICCVW",
        bias="Speech raises it; long moving hair lowers it.",
        nulls=("no_face", "single_image", "small_face", "static", "too_short", "too_small"),
    ),
    FeatureSpec(
        name="temp.rppg",
        family="temp",
        title="Pulse in the skin",
        meaning="High when the skin carries a clear pulse; a low value proves nothing.",
        unit="dB signal-to-noise",
        low=-30.0,
        high=30.0,
        direction="higher_real",
        method="POS on cheeks and forehead, 42 to 240 beats a minute; power at pulse and harmonic over the rest.",
        citation="Wang et al. 2017, Algorithmic principles of remote PPG, IEEE TBME; de Haan & Jeanne 2013, IEEE TBME",
        bias="Weaker on dark skin, in poor light, under make-up and compression; modern fakes can carry a pulse.",
        nulls=("no_face", "single_image", "small_face", "static", "too_short", "too_slow"),
    ),
)

CATALOGUE: Mapping[str, FeatureSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})
"""Feature name to its description, in the order of the table's columns."""
