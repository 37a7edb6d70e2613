"""How loud sound is over time.

Sound is float32, mono, ``(L,)`` samples; loudness is the root of its mean square.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from modules.audio.files import in_blocks

if TYPE_CHECKING:  # torch is imported where it is used: the stages that only handle files start without it
    import torch
    from torch import Tensor

RUMBLE = 61  # Hz; the mains' hum and a DC offset lie below and are lowered by 40 dB, voices begin at 75 Hz
SHORTEST = 0.1  # seconds that are needed to tell them from sound


def frame_rms(audio: np.ndarray | Iterable[np.ndarray], frame_length: int, hop_length: int) -> np.ndarray:
    """Root mean square around every ``hop_length``-th sample: ``(1 + L // hop_length,)`` for an even frame length.

    Windows are centred and at least as long as the hop; the sound is continued with ``frame_length // 2`` zeros at both
    ends. ``audio`` is ``(L,)``, or its consecutive pieces, for a recording that is too long to be held.
    """
    curve = _RmsCurve(frame_length, hop_length)
    for block in in_blocks(audio) if isinstance(audio, np.ndarray) else audio:
        curve.add(block)
    return curve.finish()


class _RmsCurve:
    """``frame_rms`` of consecutive blocks."""

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
    """``frame_rms`` of a sound, and of the same sound without what lies below RUMBLE, both ``(T,)``."""

    rms: np.ndarray
    above_rumble: np.ndarray

    def curve(self, limit: float) -> np.ndarray:
        """The one by which to tell sound from silence at this limit.

        It is the published one, ``rms``, unless more than a hundredth of the frames exceed the limit only by rumble,
        by 6 dB or more: then no pause would be found.
        """
        only_rumble = (self.rms >= limit) & (self.above_rumble < limit / 2)
        return self.above_rumble if only_rumble.mean() > 0.01 else self.rms


def measure_levels(audio: np.ndarray, rate: int, frame_length: int, hop_length: int) -> Levels:
    """The levels of ``(L,)`` samples, as of ``frame_rms``."""
    meter = LevelMeter(rate, frame_length, hop_length)
    for block in in_blocks(audio):
        meter.add(block)
    return meter.finish()


class LevelMeter:
    """Measures the levels of consecutive blocks, as of ``frame_rms``."""

    def __init__(self, rate: int, frame_length: int, hop_length: int):
        from scipy import signal

        self.shortest, self.samples = SHORTEST * rate, 0
        self.whole, self.above = _RmsCurve(frame_length, hop_length), _RmsCurve(frame_length, hop_length)
        self.high_pass = signal.cheby2(8, 40, RUMBLE, "highpass", fs=rate, output="sos")
        self.state = signal.sosfilt_zi(self.high_pass)  # for a constant 1: a DC offset must not start with a step

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
    """Loudness a frame, the volume embedding's input: ``(L,)`` -> ``(L // hop_length,)``, of the kind that came in.

    Root of the mean square of the ``hop_length`` samples around each frame's first one; ends are mirrored.
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
    """A factor for ``(L,)`` from a tenth to tenfold, uniform in its logarithm, that leaves every sample within [-1, 1].

    The published loudness augmentation. For a sound beyond full scale: from a tenth to the factor that brings its peak
    to 1.
    """
    import torch

    peak = float(audio.abs().max()) + 1e-5
    highest = min(1.0, math.log10(1 / peak))
    return 10 ** (-1 + (highest + 1) * float(torch.rand((), generator=generator)))


def match_envelope(
    source: Tensor | np.ndarray, source_rate: int, output: Tensor, output_rate: int, rate: float
) -> Tensor:
    """Give ``output`` ``(L,)`` the loudness of ``source`` over time, whole (``rate`` 0), in part, or not at all (1).

    Both envelopes are taken twice a second and drawn out linearly to the length of the output.
    """
    if rate == 1:
        return output
    wanted = _envelope(source, source_rate, output)
    present = _envelope(output, output_rate, output).clamp(min=1e-6)
    return output * wanted.pow(1 - rate) * present.pow(rate - 1)


def _envelope(audio: Tensor | np.ndarray, rate: int, like: Tensor) -> Tensor:
    import torch
    from torch.nn import functional as F

    samples = audio if isinstance(audio, np.ndarray) else audio.detach().float().cpu().numpy()
    points = torch.from_numpy(frame_rms(samples, rate // 2 * 2, rate // 2)).to(like)
    return F.interpolate(points[None, None], size=len(like), mode="linear")[0, 0]
