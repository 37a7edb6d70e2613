"""Resampling of a stream."""

from __future__ import annotations

import math

import numpy as np
import torch

from modules.audio.files import sinc_resample
from modules.console import UserError

ZERO_CROSSINGS = 32  # on one side of the filter
LONGEST_GROUP = 0.02  # seconds


def in_step(one: int, other: int) -> bool:
    """Return whether two rates in Hz are in step at least every LONGEST_GROUP seconds, as usual rates are."""
    return 1 / math.gcd(one, other) <= LONGEST_GROUP


class RateConverter:
    """Resamples a stream: sample n of the output is the sound at time n / ``to_rate``, without any shift.

    Both rates are in step once per group of samples, 3 ms with 44100 and 48000 Hz; whole groups are resampled as soon
    as the filter's neighbourhood is there. (A soxr.ResampleStream holds back up to 20 ms.)

    Attributes:
        lag: the most samples of input for which there is no output yet.
        lead: the most samples of input beyond n · ``from_rate`` / ``to_rate`` that n samples of output take.

    Raises UserError for rates that are not ``in_step``, whose groups would delay the sound by up to seconds.
    """

    def __init__(self, from_rate: int, to_rate: int):
        if not in_step(from_rate, to_rate):
            raise UserError(
                f"sound of {from_rate} Hz cannot be converted live to {to_rate} Hz; set the sound device to 44100 or "
                "48000 Hz"
            )
        divisor = math.gcd(from_rate, to_rate)
        self.source, self.target = from_rate // divisor, to_rate // divisor
        reach = ZERO_CROSSINGS * max(1, self.source / self.target) + 2
        self.context = 0 if from_rate == to_rate else math.ceil(reach / self.source)  # groups
        self.lag = 0 if from_rate == to_rate else (self.context + 1) * self.source - 1
        self.lead = 0 if from_rate == to_rate else self.lag + self.source
        self._pending = np.zeros(self.context * self.source, np.float32)  # before the stream there is silence

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        """Resample the next samples (n,) of the stream; returns as many as are ready."""
        if not self.lag:
            return sound
        self._pending = np.concatenate((self._pending, sound))
        groups = len(self._pending) // self.source - 2 * self.context
        if groups <= 0:
            return np.zeros(0, np.float32)
        around = torch.from_numpy(self._pending[: (groups + 2 * self.context) * self.source])
        resampled = sinc_resample(around, self.source, self.target, ZERO_CROSSINGS).numpy()
        self._pending = self._pending[groups * self.source :]
        return resampled[self.context * self.target : (self.context + groups) * self.target]
