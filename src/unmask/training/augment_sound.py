"""Augmentations of windows of sound for training; never used on val, calib or test.

Gain alone is none of them: every window is brought to one level on the way into a detector.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unmask.config import AugmentationConfig
from unmask.media.sound import SAMPLE_RATE_HZ, Samples

Floats = NDArray[np.float64]
# In this order; each is a method of `SoundAugmentation` and, with `sound_` before it, a chance in `AugmentationConfig`.
DAMAGES = ("shift", "noise", "overdrive", "band", "codec")
FULL_SCALE = 32767
MU = 255


@dataclass(frozen=True)
class SoundAugmentation:
    """Which damages a window may take, each drawn on its own, in the order in which sound meets them.

    Attributes:
        chances: Of each damage.
        snr_db: Smallest and largest distance of the noise to the sound.
        noise_slope_db: Steepest fall or rise of the noise, a decade of frequency.
        overdrive_db: Most that the loudest sample is cut down.
        low_pass_hz: Lowest and highest end of the band that is left.
        high_pass_hz: Lowest and highest beginning of it.
    """

    chances: AugmentationConfig = field(default_factory=AugmentationConfig)
    snr_db: tuple[float, float] = (12.0, 45.0)
    noise_slope_db: float = 20.0
    overdrive_db: float = 9.0
    low_pass_hz: tuple[float, float] = (3000.0, 8000.0)
    high_pass_hz: tuple[float, float] = (0.0, 300.0)

    def __call__(self, samples: Samples, rng: np.random.Generator, *, rarer: bool = False) -> Samples:
        """Augment a window.

        Args:
            samples: ``(L,)``, int16; not changed.
            rng: Source of all choices; the same state gives the same window.
            rarer: Whether it is of the rarer class, whose chances are ``minority_factor`` times as high.

        Returns:
            ``(L,)``, int16.
        """
        # All coins are tossed first, so that one chance can change without changing what the others do.
        coins = dict(zip(DAMAGES, rng.random(len(DAMAGES)), strict=True))
        factor = self.chances.minority_factor if rarer else 1.0
        wanted = [name for name in DAMAGES if coins[name] < getattr(self.chances, f"sound_{name}") * factor]
        changed = samples.astype(np.float64)
        for name in wanted:
            changed = getattr(self, f"_{name}")(changed, rng)
        return np.clip(np.rint(changed), -FULL_SCALE, FULL_SCALE).astype(np.int16)

    def _shift(self, x: Floats, rng: np.random.Generator) -> Floats:
        """Begin elsewhere, as if the window had been cut at another time; what was in front comes behind."""
        return np.roll(x, -int(rng.integers(len(x))))

    def _noise(self, x: Floats, rng: np.random.Generator) -> Floats:
        """Add stationary noise of a random colour (the third part of RawBoost, Tak et al., ICASSP 2022)."""
        snr_db, slope_db = rng.uniform(*self.snr_db), rng.uniform(-self.noise_slope_db, self.noise_slope_db)
        noise = coloured_noise(len(x), slope_db, rng)
        return x + noise * float(np.sqrt(np.mean(x**2))) * 10 ** (-snr_db / 20)

    def _overdrive(self, x: Floats, rng: np.random.Generator) -> Floats:
        """Cut the peaks off, as a microphone that was too loud."""
        limit = float(np.abs(x).max(initial=1.0)) * 10 ** (-rng.uniform(0, self.overdrive_db) / 20)
        return np.clip(x, -limit, limit)

    def _band(self, x: Floats, rng: np.random.Generator) -> Floats:
        """Leave a band, as telephones and low bit rates do."""
        return band_limited(x, rng.uniform(*self.high_pass_hz), rng.uniform(*self.low_pass_hz))

    def _codec(self, x: Floats, rng: np.random.Generator) -> Floats:
        """Round on a logarithmic scale to 8 bits (ITU-T G.711, μ-law)."""
        return companded(x)


def coloured_noise(n: int, slope_db: float, rng: np.random.Generator) -> Floats:
    """Make noise whose spectrum falls or rises in a straight line.

    Args:
        n: Samples.
        slope_db: Change of level a decade of frequency; 0 is white, -10 pink.
        rng: Source of the noise.

    Returns:
        ``(n,)`` with a root mean square of 1.
    """
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequency = np.maximum(np.arange(len(spectrum)), 1)
    noise = np.fft.irfft(spectrum * (frequency / len(spectrum)) ** (slope_db / 20), n)
    return np.asarray(noise / max(float(np.sqrt(np.mean(noise**2))), 1e-12))


def band_limited(x: Floats, low_hz: float, high_hz: float) -> Floats:
    """Remove what lies outside of a band.

    Args:
        x: ``(L,)``, 16 kHz.
        low_hz: Beginning of the band.
        high_hz: End of the band.

    Returns:
        ``(L,)``.
    """
    spectrum = np.fft.rfft(x)
    frequency = np.fft.rfftfreq(len(x), 1 / SAMPLE_RATE_HZ)
    # Edges a tenth of their frequency wide: brick walls ring.
    rise = np.clip((frequency - 0.9 * low_hz) / max(0.1 * low_hz, 1e-9), 0, 1)
    fall = np.clip((1.1 * high_hz - frequency) / (0.1 * high_hz), 0, 1)
    return np.asarray(np.fft.irfft(spectrum * rise * fall, len(x)))


def companded(x: Floats) -> Floats:
    """Round samples ``(L,)`` of 16 bits to 8 bits on a logarithmic scale, and back."""
    share = np.clip(x / FULL_SCALE, -1, 1)
    coded = np.rint(np.sign(share) * np.log1p(MU * np.abs(share)) / np.log1p(MU) * 127) / 127
    return np.asarray(np.sign(coded) * np.expm1(np.abs(coded) * np.log1p(MU)) / MU * FULL_SCALE)
