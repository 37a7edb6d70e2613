"""A fixed signal with the variety of speech, by which an encoder's features are standardised without recordings."""

from __future__ import annotations

import numpy as np

from vencoder.encoder import SAMPLING_RATE

SEED = 20
FORMANTS = (((250, 850), 80), ((800, 2500), 120), ((2300, 3300), 180), ((3700, 3700), 250))  # Hz: range, bandwidth


def speech_like(seconds: float) -> np.ndarray:
    """Return (L,) float32 at 16 kHz: vowels of changing pitch and formants, noises, and pauses, in random order.

    Models are trained on features that are standardised with this signal, so it must never change. NumPy promises that
    for the numbers of RandomState alone.
    """
    rng, total = np.random.RandomState(SEED), int(seconds * SAMPLING_RATE)
    parts, length = [], 0
    while length < total:
        samples = int(SAMPLING_RATE * rng.uniform(0.06, 0.25))
        kind = rng.random_sample()
        part = _vowel(rng, samples) if kind < 0.6 else _noise(rng, samples) if kind < 0.9 else np.zeros(samples)
        peak = np.abs(part).max(initial=1e-9)
        parts.append(rng.uniform(0.1, 0.5) * part / peak * np.hanning(samples) ** 0.25)
        length += samples
    audio = np.concatenate(parts)[:total]
    return (audio + 1e-4 * rng.standard_normal(total)).astype(np.float32)


def _vowel(rng: np.random.RandomState, samples: int) -> np.ndarray:
    """Filter pulses of a gliding pitch by four formants."""
    f0 = rng.uniform(90, 300) * np.linspace(1, rng.uniform(0.8, 1.25), samples)
    sound = np.diff(np.floor(np.cumsum(f0) / SAMPLING_RATE), prepend=0)
    for (lowest, highest), bandwidth in FORMANTS:
        sound = _resonate(sound, rng.uniform(lowest, highest), bandwidth)
    return _low_pass(sound)


def _noise(rng: np.random.RandomState, samples: int) -> np.ndarray:
    """Filter noise by one resonance, as a fricative has."""
    return _resonate(rng.standard_normal(samples), rng.uniform(1500, 6500), rng.uniform(500, 2500))


def _resonate(sound: np.ndarray, frequency: float, bandwidth: float) -> np.ndarray:
    from scipy.signal import lfilter

    radius = np.exp(-np.pi * bandwidth / SAMPLING_RATE)
    swing = 2 * radius * np.cos(2 * np.pi * frequency / SAMPLING_RATE)
    return lfilter([1 - swing + radius**2], [1, -swing, radius**2], sound)


def _low_pass(sound: np.ndarray) -> np.ndarray:
    """Give pulses the falling spectrum of a voice."""
    from scipy.signal import lfilter

    return lfilter([1], [1, -0.95], sound)
