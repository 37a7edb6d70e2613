"""F0 and voicing of a stream of sound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from live.history import History

CONTEXT = 0.5  # seconds before a block that the predictor hears with it


class PitchStream:
    """F0, shifted, and voicing of each frame.

    The predictor computes a window of constant length that ends with the sound. Final frames do not change any more;
    those after them are provisional.

    Args:
        hop_length: samples per frame.
        frames: frames of the window.
        kept: how many of the newest frames can be read.
        device: device of the result.
    """

    def __init__(self, hop_length: int, frames: int, kept: int, device: torch.device):
        self.hop_length, self.window = hop_length, frames
        self.final = 0  # frame before which all are final
        self._held = 0.0  # Hz; for a window without voice
        self._values = History(2, kept, device)

    def update(self, predictor: Callable, shift: float, sound: History, final_frames: int) -> None:
        """Find F0 in the newest sound and shift it by ``shift`` semitones; frames before ``final_frames`` are final.

        Frames in a window without voice keep the last F0 and are unvoiced.
        """
        last = sound.end // self.hop_length
        first = last - self.window
        f0, uv = predictor(sound.view(first * self.hop_length, last * self.hop_length)[0].cpu().numpy())
        if not uv.any():
            f0 = np.full_like(f0, self._held)
        kept = max(self.final, first, last - self._values.length)
        values = torch.from_numpy(np.stack((f0 * np.float32(2 ** (shift / 12)), uv))[:, kept - first :])
        self._values.write(kept, values)
        self.final = max(self.final, final_frames)
        self._held = float(f0[final_frames - 1 - first])

    def f0(self, first: int, last: int) -> Tensor:
        """Return F0 in Hz of the frames ``first`` to ``last``, (1, n)."""
        return self._values.view(first, last)[:1]

    def uv(self, first: int, last: int) -> Tensor:
        """Return the voicing of the frames ``first`` to ``last``, (1, n), 1 where voiced."""
        return self._values.view(first, last)[1:]
