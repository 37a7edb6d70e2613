"""Loudness over time, as root mean square (RMS).

Audio is float32, mono, ``(L,)`` samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from modules.audio.files import in_blocks

if TYPE_CHECKING:  # imported where it is used, so that stages that only handle files start without torch
    import torch
    from torch import Tensor

RUMBLE = 61  # Hz; mains hum and DC offset lie below and are lowered by 40 dB, voices start at 75 Hz
SHORTEST = 0.1  # seconds; shorter audio is not filtered or corrected for DC offset


def frame_rms(audio: np.ndarray | Iterable[np.ndarray], frame_length: int, hop_length: int) -> np.ndarray:
    """Return the RMS around every ``hop_length``-th sample: ``(1 + L // hop_length,)`` for an even frame length.

    Windows are centred and at least as long as the hop; the audio is padded with ``frame_length // 2`` zeros at both
    ends. ``audio`` is ``(L,)``, or consecutive pieces of it, for a recording that does not fit into memory.
    """
    curve = _RmsCurve(frame_length, hop_length)
    for block in in_blocks(audio) if isinstance(audio, np.ndarray) else audio:
        curve.add(block)
    return curve.finish()


class _RmsCurve:
    """Computes ``frame_rms`` of consecutive blocks."""

    def __init__(self, frame_length: int, hop_length: int):
        self.frame_length, self.hop_length = frame_length, hop_length
        self.pending, self.frames = np.zeros(frame_length // 2, np.float32), []

    def add(self, block: np.ndarray) -> None:
        self.pending = np.concatenate((self.pending, block))
        if len(self.pending) >= self.frame_length:
            windows = np.lib.stride_tricks.sliding_window_view(self.pending, self.frame_length)[:: self.hop_length]
            self.frames.append(np.sqrt(np.mean(np.square(windows), axis=-1)))
            self.pending = self.pending[len(windows) * self.hop_length :]

    def finish(self) -> np.ndarray:
        self.add(np.zeros(self.frame_length // 2, np.float32))
        return np.concatenate(self.frames) if self.frames else np.zeros(0, np.float32)


@dataclass(frozen=True)
class Levels:
    """``frame_rms`` of audio, and of the same audio high-passed at RUMBLE, both ``(T,)``."""

    rms: np.ndarray
    above_rumble: np.ndarray

    def curve(self, limit: float) -> np.ndarray:
        """Return the curve for finding silence below ``limit`` (RMS).

        That is ``rms``, as published, unless rumble lifts more than 1 % of the frames above the limit, by 6 dB or more:
        then no pause would be found, so it is ``above_rumble``.
        """
        only_rumble = (self.rms >= limit) & (self.above_rumble < limit / 2)
        return self.above_rumble if only_rumble.mean() > 0.01 else self.rms


def measure_levels(audio: np.ndarray, rate: int, frame_length: int, hop_length: int) -> Levels:
    """Return the levels of ``(L,)`` samples; lengths as in ``frame_rms``."""
    meter = LevelMeter(rate, frame_length, hop_length)
    for block in in_blocks(audio):
        meter.add(block)
    return meter.finish()


class LevelMeter:
    """Measures the levels of consecutive blocks; lengths as in ``frame_rms``."""

    def __init__(self, rate: int, frame_length: int, hop_length: int):
        from scipy import signal

        self.shortest, self.samples = SHORTEST * rate, 0
        self.whole, self.above = _RmsCurve(frame_length, hop_length), _RmsCurve(frame_length, hop_length)
        self.high_pass = signal.cheby2(8, 40, RUMBLE, "highpass", fs=rate, output="sos")
        self.state = signal.sosfilt_zi(self.high_pass)  # state of a constant 1: a DC offset starts without a step

    def add(self, block: np.ndarray) -> None:
        from scipy import signal

        if len(block) == 0:
            return
        if self.samples == 0:
            self.state = self.state * float(block[0])
        self.samples += len(block)
        self.whole.add(block)
        filtered, self.state = signal.sosfilt(self.high_pass, block.astype(np.float64), zi=self.state)
        self.above.add(filtered.astype(np.float32))

    def finish(self) -> Levels:
        rms, above = self.whole.finish(), self.above.finish()
        return Levels(rms, above if self.samples >= self.shortest else rms)


def volume(audio: Tensor | np.ndarray, hop_length: int) -> Tensor | np.ndarray:
    """Compute the loudness per frame, input of the volume embedding: ``(L,)`` -> ``(L // hop_length,)``, type kept.

    It is the RMS of the ``hop_length`` samples around each frame's first sample, with reflect padding at the ends.
    """
    import torch
    from torch.nn import functional as F

    if isinstance(audio, np.ndarray):
        return volume(torch.from_numpy(audio), hop_length).numpy()
    frames = audio.shape[-1] // hop_length
    if frames == 0:
        return audio.new_zeros(0)
    power = audio.float().square()[None]
    padded = F.pad(power, (hop_length // 2, (hop_length + 1) // 2), mode="reflect")[0]
    return padded[: frames * hop_length].view(frames, hop_length).mean(-1).sqrt()


def random_gain(audio: Tensor, generator: torch.Generator) -> float:
    """Return a random gain for ``(L,)`` from 0.1 to 10, log-uniform, that keeps every sample within [-1, 1].

    The published loudness augmentation. For audio above full scale the highest gain is the one that makes the peak 1.
    """
    import torch

    peak = float(audio.abs().max()) + 1e-5
    highest = min(1.0, math.log10(1 / peak))
    return 10 ** (-1 + (highest + 1) * float(torch.rand((), generator=generator)))


def match_envelope(
    source: Tensor | np.ndarray, source_rate: int, output: Tensor, output_rate: int, share: float
) -> Tensor:
    """Give ``output`` ``(L,)`` the loudness envelope of ``source``: fully (``share`` 0), partly, or not at all (1).

    Both envelopes have two points per second and are interpolated linearly to the length of the output.
    """
    if share == 1:
        return output
    wanted = _envelope(source, source_rate, output)
    present = _envelope(output, output_rate, output).clamp(min=1e-6)
    return output * wanted.pow(1 - share) * present.pow(share - 1)


def _envelope(audio: Tensor | np.ndarray, rate: int, like: Tensor) -> Tensor:
    import torch
    from torch.nn import functional as F

    samples = audio if isinstance(audio, np.ndarray) else audio.detach().float().cpu().numpy()
    points = torch.from_numpy(frame_rms(samples, rate // 2 * 2, rate // 2)).to(like)
    return F.interpolate(points[None, None], size=len(like), mode="linear")[0, 0]
