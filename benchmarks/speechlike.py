"""Synthetic features distributed like a speech encoder's: a few dozen sounds and glides, coloured by the voice."""

from __future__ import annotations

import numpy as np

SOUNDS, LATENT, HIDDEN = 60, 24, 256


def speechlike_features(count: int, size: int, seed: int = 0, voice: int = 0) -> np.ndarray:
    """Return ``count`` consecutive frames (count, size) float32.

    ``voice`` is the seed of the sounds and of their map to features, ``seed`` that of the content.
    """
    rng = np.random.default_rng(voice)
    sounds = rng.standard_normal((SOUNDS, LATENT))
    into, out = rng.standard_normal((LATENT, HIDDEN)) / 5, rng.standard_normal((HIDDEN, size)) / HIDDEN**0.5
    rng = np.random.default_rng((voice, seed))
    path = np.empty((count, LATENT))
    start = 0
    while start < count:
        end = min(count, start + int(rng.integers(2, 15)))
        path[start:end] = sounds[rng.integers(SOUNDS)] + 0.3 * rng.standard_normal(LATENT)
        start = end
    window = np.hanning(7)[1:-1]
    glides = np.stack([np.convolve(track, window / window.sum(), "same") for track in path.T], axis=1)
    glides += 0.15 * rng.standard_normal(glides.shape)
    return (np.tanh(glides @ into) @ out + 0.1 * rng.standard_normal((count, size))).astype(np.float32)
