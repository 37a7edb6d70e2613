"""A ring buffer of sound by absolute position."""

from __future__ import annotations

import numpy as np


class Ring:
    """The sound at the positions of an endless stream, of which the newest ``length`` samples written are kept."""

    def __init__(self, length: int):
        self.length = length
        self._samples = np.zeros(length, np.float32)

    def write(self, first: int, sound: np.ndarray) -> None:
        """Write ``sound`` (n,) from position ``first`` on; of more than ``length`` samples only the last ones."""
        first, sound = first + max(0, len(sound) - self.length), sound[-self.length :]
        self._samples[np.arange(first, first + len(sound)) % self.length] = sound

    def read(self, first: int, last: int) -> np.ndarray:
        """Return a copy of the positions ``first`` to ``last``, at most ``length`` apart."""
        return self._samples[np.arange(first, last) % self.length]
