"""Post-processing of raw F0 curves, in which zero means unvoiced: resizing to frames and filling gaps."""

from __future__ import annotations

import numpy as np


def interpolate_unvoiced(f0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate F0 ``(T,)`` across unvoiced frames: linearly between voiced ones, constant at both ends.

    Returns f0 and uv, ``(T,)`` float32; uv is 1 for voiced frames. If no frame is voiced, both are zeros.
    """
    voiced = f0 > 0
    indices = np.flatnonzero(voiced)
    if len(indices) == 0:
        return np.zeros(len(f0), np.float32), np.zeros(len(f0), np.float32)
    filled = np.interp(np.arange(len(f0)), indices, f0[indices])
    return filled.astype(np.float32), voiced.astype(np.float32)


def resize_linear(f0: np.ndarray, frames: int) -> np.ndarray:
    """Sample ``(S,)`` at positions ``i * S / frames`` by linear interpolation; zero next to an unvoiced frame.

    Positions after the last frame take its value, and a position exactly on a frame takes that frame's value.
    """
    source = len(f0)
    if source == 0:
        return np.zeros(frames)
    left, rest = np.divmod(np.arange(frames) * source, max(frames, 1))
    right = np.minimum(left + 1, source - 1)
    fraction = rest / max(frames, 1)
    between = f0[left] * (1 - fraction) + f0[right] * fraction
    voiced = (f0[left] > 0.001) & ((f0[right] > 0.001) | (rest == 0))
    return np.where(voiced, between, 0.0)


def resize_nearest(f0: np.ndarray, frames: int) -> np.ndarray:
    """Take the frame of ``(S,)`` at or before ``i * S / frames``, computed in float32 as torch's ``interpolate``."""
    source = len(f0)
    if source == 0:
        return np.zeros(frames, np.float32)
    scale = np.float32(source) / np.float32(max(frames, 1))
    indices = np.floor(np.arange(frames, dtype=np.float32) * scale).astype(np.int64)
    return f0[np.minimum(indices, source - 1)]
