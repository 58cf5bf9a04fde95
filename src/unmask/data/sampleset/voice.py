"""A synthetic voice: who speaks when, how it sounds, how the mouth moves with it, and how a vocoder copies it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal, special

from unmask.data.sampleset.identity import Identity

Floats = NDArray[np.float64]

SAMPLE_RATE_HZ = 16_000
LEVEL_RMS = 0.06  # of every voice track, so that loudness tells nothing
MOUTH_REACH = 0.17  # gap between the lips in the widest vowel, face units
FRAME, HOP = 512, 128  # of the vocoder, samples
_WINDOW = signal.windows.hann(FRAME, sym=False)
_BANDWIDTHS_HZ = (70.0, 100.0, 140.0, 200.0)


@dataclass(frozen=True)
class _Vowel:
    """A vowel: its formants, and what the mouth does.

    Attributes:
        formants_hz: The first four resonances of an adult man's tract (after Peterson & Barney 1952).
        opening: Of the mouth, 0 to 1.
        rounding: Of the lips, -1 wide to 1 pursed.
    """

    formants_hz: tuple[float, float, float, float]
    opening: float
    rounding: float


_VOWELS = (
    _Vowel((730, 1090, 2440, 3500), 1.0, -0.1),
    _Vowel((270, 2290, 3010, 3700), 0.35, -0.7),
    _Vowel((300, 870, 2240, 3400), 0.35, 0.9),
    _Vowel((530, 1840, 2480, 3600), 0.6, -0.4),
    _Vowel((570, 840, 2410, 3400), 0.75, 0.6),
    _Vowel((490, 1350, 1690, 3300), 0.5, 0.1),
)


@dataclass(frozen=True)
class Syllable:
    """One syllable.

    Attributes:
        start_s: When its vowel starts.
        length_s: How long the vowel lasts.
        vowel: Index of the vowel.
        strength: Loudness, 0 to 1.
        hiss: Loudness of the consonant before it, 0 to 1.
    """

    start_s: float
    length_s: float
    vowel: int
    strength: float
    hiss: float


def plan_speech(duration_s: float, rng: np.random.Generator) -> tuple[Syllable, ...]:
    """Plan who says what: phrases of some syllables with pauses between them.

    Args:
        duration_s: Length of the clip.
        rng: Draws the speech.

    Returns:
        The syllables in order of time.
    """
    syllables: list[Syllable] = []
    time_s = rng.uniform(0.05, 0.3)
    left_in_phrase = int(rng.integers(4, 11))
    rate_hz = rng.uniform(3.6, 5.4)
    while time_s < duration_s - 0.15:
        length_s = min(rng.uniform(0.55, 0.8) / rate_hz, duration_s - time_s - 0.05)
        vowel = int(rng.integers(len(_VOWELS)))
        syllables.append(Syllable(time_s, length_s, vowel, rng.uniform(0.6, 1.0), rng.uniform(0, 1)))
        time_s += length_s + rng.uniform(0.3, 0.45) / rate_hz
        left_in_phrase -= 1
        if left_in_phrase == 0:
            time_s += rng.uniform(0.3, 0.6)
            left_in_phrase = int(rng.integers(4, 11))
    return tuple(syllables)


def _swell(times_s: Floats, start_s: float, length_s: float, edge_s: float) -> Floats:
    """1 within the interval, 0 outside, with soft edges."""
    rise = special.expit((times_s - start_s) / (edge_s / 4))
    return np.asarray(rise * special.expit((start_s + length_s - times_s) / (edge_s / 4)))


def mouth_track(syllables: tuple[Syllable, ...], times_s: Floats) -> tuple[Floats, Floats]:
    """Move the mouth with the speech; it opens a little before the sound.

    Args:
        syllables: The speech.
        times_s: When to look, ``(T,)``.

    Returns:
        Gap between the lips in face units and rounding from -1 to 1, each ``(T,)``.
    """
    opening, rounding = np.zeros_like(times_s), np.zeros_like(times_s)
    for syllable in syllables:
        vowel = _VOWELS[syllable.vowel]
        weight = _swell(times_s, syllable.start_s - 0.04, syllable.length_s + 0.03, 0.09)
        opening = np.maximum(opening, weight * vowel.opening * syllable.strength)
        rounding += weight * vowel.rounding
    return MOUTH_REACH * opening, np.clip(rounding, -1, 1)


def _resonate(sound: Floats, formants_hz: tuple[float, ...], scale: float) -> Floats:
    """Pass a sound through the resonances of a vocal tract."""
    for formant_hz, bandwidth_hz in zip(formants_hz, _BANDWIDTHS_HZ, strict=True):
        radius = np.exp(-np.pi * bandwidth_hz / SAMPLE_RATE_HZ)
        angle = 2 * np.pi * min(formant_hz * scale, 7000) / SAMPLE_RATE_HZ
        poles = np.array([1, -2 * radius * np.cos(angle), radius * radius])
        sound = signal.lfilter([poles.sum()], poles, sound)
    return sound


def _larynx(identity: Identity, times_s: Floats, rng: np.random.Generator) -> Floats:
    """Sound of the vocal folds: a train of pulses whose pitch wanders, and some breath."""
    wander = np.interp(
        times_s,
        np.arange(0, times_s[-1] + 0.5, 0.25),
        rng.normal(0, 0.06, int(times_s[-1] * 4) + 3)[: len(np.arange(0, times_s[-1] + 0.5, 0.25))],
    )
    pitch_hz = identity.voice_hz * (1 + wander) * (1 + 0.01 * np.sin(2 * np.pi * 5.3 * times_s))
    cycles = np.cumsum(pitch_hz) / SAMPLE_RATE_HZ
    pulses = np.diff(np.floor(cycles), prepend=0.0)
    pulses *= 1 + 0.08 * rng.standard_normal(len(pulses))
    folds = signal.lfilter([1.0], [1, -1.86, 0.8649], pulses)
    folds = signal.lfilter([1.0, -0.98], [1.0], folds)
    return np.asarray(folds / (np.abs(folds).max() + 1e-9) + 0.012 * rng.standard_normal(len(folds)))


def speak(identity: Identity, syllables: tuple[Syllable, ...], duration_s: float, rng: np.random.Generator) -> Floats:
    """Synthesise the speech by the source-filter model (Fant 1960), in a small room.

    Args:
        identity: Whose voice.
        syllables: What to say.
        duration_s: Length.
        rng: Draws pitch, hiss and room.

    Returns:
        Samples at `SAMPLE_RATE_HZ`, RMS `LEVEL_RMS`.
    """
    n = round(duration_s * SAMPLE_RATE_HZ)
    times_s = np.arange(n) / SAMPLE_RATE_HZ
    folds = _larynx(identity, times_s, rng)
    voiced, hiss = np.zeros(n), np.zeros(n)
    for index, vowel in enumerate(_VOWELS):
        weight = np.zeros(n)
        for syllable in syllables:
            if syllable.vowel == index:
                weight += syllable.strength * _swell(times_s, syllable.start_s, syllable.length_s, 0.04)
        if weight.any():
            voiced += weight * _resonate(folds, vowel.formants_hz, identity.vocal_tract)
    for syllable in syllables:
        hiss += 0.25 * syllable.hiss * _swell(times_s, syllable.start_s - 0.06, 0.05, 0.02)
    breath = signal.sosfilt(
        signal.butter(2, (2500, 7000), "bandpass", fs=SAMPLE_RATE_HZ, output="sos"), rng.standard_normal(n)
    )
    sound = voiced / (voiced.std() + 1e-9) + hiss * breath / breath.std()
    echo = rng.standard_normal(2400) * np.exp(-np.arange(2400) / 450) * 0.02
    echo[0] = 1
    sound = signal.fftconvolve(sound, echo)[:n] + 0.006 * rng.standard_normal(n)
    return _levelled(sound)


def _levelled(sound: Floats) -> Floats:
    return np.asarray(np.clip(sound * (LEVEL_RMS / (np.sqrt(np.mean(sound**2)) + 1e-12)), -0.99, 0.99))


def _mel_basis(bands: int, bins: int) -> Floats:
    """Triangular mel filters, ``(bands, bins)``, each summing to 1."""
    top = 2595 * np.log10(1 + SAMPLE_RATE_HZ / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1) / (SAMPLE_RATE_HZ / 2) * (bins - 1)
    position = np.arange(bins)[None]
    rise = (position - edges[:-2, None]) / np.maximum(edges[1:-1] - edges[:-2], 1)[:, None]
    fall = (edges[2:, None] - position) / np.maximum(edges[2:] - edges[1:-1], 1)[:, None]
    basis = np.clip(np.minimum(rise, fall), 0, None) + 1e-9
    return np.asarray(basis / basis.sum(1, keepdims=True))


def _spectra(sound: Floats) -> NDArray[np.complex128]:
    """Short-time spectra of a sound, ``(frames, FRAME // 2 + 1)``."""
    padded = np.pad(sound, (FRAME, FRAME + -len(sound) % HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    return np.asarray(np.fft.rfft(frames * _WINDOW))


def _sound(spectra: NDArray[np.complex128], n: int) -> Floats:
    """The sound of ``n`` samples whose spectra come nearest to these (Griffin & Lim 1984, equation 6)."""
    frames = np.fft.irfft(spectra) * _WINDOW
    parts = FRAME // HOP
    total = np.zeros((len(frames) + parts - 1, HOP))
    for part in range(parts):
        total[part : part + len(frames)] += frames[:, part * HOP : (part + 1) * HOP]
    # The squares of the overlapping windows sum to a constant.
    return np.asarray(total.ravel()[FRAME : FRAME + n] / (np.sum(_WINDOW**2) / HOP))


def resynthesise(sound: Floats, rng: np.random.Generator, *, bands: int = 64, rounds: int = 6) -> Floats:
    """Copy a voice as a vocoder does: its mel spectrogram survives, its phase is guessed.

    Phase is rebuilt by the algorithm of Griffin & Lim (1984).

    Args:
        sound: Samples at `SAMPLE_RATE_HZ`.
        rng: Draws the first phase.
        bands: Mel bands that survive.
        rounds: Rounds of phase reconstruction.

    Returns:
        Samples of the same length and level.
    """
    power = np.abs(_spectra(sound)) ** 2
    basis = _mel_basis(bands, power.shape[1])
    spread = basis / basis.sum(0)
    copied = np.sqrt(power @ basis.T @ spread)
    spectrum = copied * np.exp(2j * np.pi * rng.random(copied.shape))
    for _ in range(rounds):
        guess = _spectra(_sound(spectrum, len(sound)))
        spectrum = copied * guess / (np.abs(guess) + 1e-9)
    return _levelled(_sound(spectrum, len(sound)))
