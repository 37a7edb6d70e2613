"""Progress, voicing and F0 of one conversion, which its pieces share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from inference.f0_curve import MARGIN, F0Log
from inference.feature_extractor import Features
from inference.voicing import Voicing

Progress = Callable[[float], None]


class SongState:
    """The state of one conversion of a song.

    Args:
        rate, hop_length: of the model.
        on_progress: callback that gets the seconds of the song that are converted, after every block of the decoder and
            step of the diffusion. An exception that it raises ends the conversion.
        f0_log: collects the song's F0.
    """

    def __init__(self, rate: int, hop_length: int, on_progress: Progress | None = None, f0_log: F0Log | None = None):
        self.rate, self.hop_length, self._on_progress, self._f0_log = rate, hop_length, on_progress, f0_log
        self.voicing = Voicing()
        self._start, self._end = 0, 0  # the current piece, as the song's samples at the model's rate

    def begin(self, start: int, length: int) -> None:
        """Begin the piece of ``length`` samples from the song's sample ``start`` on, at the model's rate."""
        self._start, self._end = start, start + length
        self.report(start)

    def add(self, wav: np.ndarray, features: Features) -> None:
        """Add the features of the current piece's sound (L,), padding included, with F0 before any shift."""
        uv = features.uv[0].cpu().numpy()
        self.voicing.add(wav, uv, self.hop_length)
        if self._f0_log is None:
            return
        places = features.start + np.arange(len(uv)) * self.hop_length
        margin = MARGIN * self.hop_length
        own = (places >= self._start - margin) & (places < self._end + margin)
        f0 = features.f0[0].cpu().numpy()
        self._f0_log.add(places[own] / self.rate, f0[own], uv[own], self._start / self.rate)

    def report(self, sample: int | None = None) -> None:
        """Report that the song is converted up to ``sample``, within the current piece; None stands for its start."""
        if self._on_progress:
            sample = self._start if sample is None else sample
            self._on_progress(max(self._start, min(sample, self._end)) / self.rate)
