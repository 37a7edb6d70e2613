"""What becomes of a raw F0 curve: frames made to fit, gaps drawn through. In raw curves zero is unvoiced."""

from __future__ import annotations

import numpy as np


def interpolate_unvoiced(f0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw F0 ``(T,)`` through unvoiced frames: linear between voiced ones, constant at both ends.

    Returns f0 and uv, ``(T,)`` float32; uv is 1 where the frame was voiced. Where none was, both are zeros; where one
    was, its value stands everywhere.
    """
    voiced = f0 > 0
    places = np.flatnonzero(voiced)
    if len(places) == 0:
        return np.zeros(len(f0), np.float32), np.zeros(len(f0), np.float32)
    drawn = np.interp(np.arange(len(f0)), places, f0[places])
    return drawn.astype(np.float32), voiced.astype(np.float32)


def resize_linear(f0: np.ndarray, frames: int) -> np.ndarray:
    """Read ``(S,)`` at positions ``i * S / frames``; zero between two frames of which one is unvoiced.

    The last frame is held beyond its place, and a position exactly on a frame takes that frame's value.
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
    """Read ``(S,)`` at the frame at or before ``i * S / frames``, in float32 as torch's ``interpolate`` does."""
    source = len(f0)
    if source == 0:
        return np.zeros(frames, np.float32)
    scale = np.float32(source) / np.float32(max(frames, 1))
    places = np.floor(np.arange(frames, dtype=np.float32) * scale).astype(np.int64)
    return f0[np.minimum(places, source - 1)]
