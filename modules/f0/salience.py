"""What the pitch networks share: sound at their rate in, the salience of 360 pitches a frame, F0 out of it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from modules.audio import sinc_resample
from modules.console import UserError, get_logger
from modules.f0 import F0Predictor
from modules.f0.blocks import blocks
from modules.f0.contour import resize_nearest

log = get_logger("f0")

ZERO_CROSSINGS = 128  # of the resampling filter on one side; the networks were trained behind one as steep
ROLL_OFF = 0.99
SECONDS = 30  # of sound that are resampled at once
REACH = 4  # bins on both sides of the likeliest one that F0 is averaged over


class SaliencePredictor(F0Predictor):
    """A network that says for each frame and each of 360 pitches how likely that pitch is sung.

    On CUDA devices it computes in half precision; what comes out not finite is computed again in float32.
    """

    network_rate = 16000  # Hz
    window = 1024  # samples at that rate: a shorter sound is too short to have a pitch
    cell = 1  # frames: sounds whose frames fill equally many cells can be computed together
    edges_count_twice = False  # see ``decode``

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.half = torch.device(self.device).type == "cuda"

    def contour(self, audio: np.ndarray, frames: int) -> np.ndarray:
        return self.contours([audio], [frames])[0]

    @torch.inference_mode()
    def contours(self, sounds: Sequence[np.ndarray], frames: Sequence[int]) -> list[np.ndarray]:
        curves = [np.zeros(n, np.float32) for n in frames]
        groups = defaultdict(list)  # number of cells -> (index of the sound, its mel)
        for index, audio in enumerate(sounds):
            if len(audio) * self.network_rate >= self.window * self.sampling_rate and audio.any():
                mel = self._mel_of(audio)
                groups[-(-mel.shape[-1] // self.cell)].append((index, mel))
        for group in groups.values():
            padded = [F.pad(mel, (0, -mel.shape[-1] % self.cell)) for _, mel in group]
            found = self._track(torch.cat(padded)).cpu().numpy()
            for (index, mel), f0 in zip(group, found, strict=True):
                curves[index] = resize_nearest(f0[: mel.shape[-1]], frames[index])
        return curves

    def _mel_of(self, audio: np.ndarray) -> Tensor:
        wave = resample_in_blocks(torch.from_numpy(audio), self.sampling_rate, self.network_rate, self.device)
        return self.log_mel(wave[None])

    @abstractmethod
    def log_mel(self, wave: Tensor) -> Tensor:
        """What the network sees of ``(B, L)``: ``(B, n_mels, N)``, a frame every 10 ms."""

    @abstractmethod
    def saliences(self, mel: Tensor) -> Iterator[Tensor]:
        """Of ``(B, n_mels, N)`` the consecutive parts of ``(B, N, 360)`` in [0, 1]; N is a multiple of ``cell``."""

    @property
    @abstractmethod
    def cents(self) -> Tensor:
        """The pitch of each of the 360 bins, in cents above 10 Hz."""

    def _track(self, mel: Tensor) -> Tensor:
        """F0 in Hz ``(B, N)`` of ``(B, n_mels, N)``, zero where unvoiced."""
        if self.half:
            with torch.autocast(mel.device.type, dtype=torch.float16):
                f0 = self._decoded(mel)
            if f0.isfinite().all():
                return f0
            log.warning("half precision does not suffice for this sound; its F0 is computed in float32")
        f0 = self._decoded(mel)
        if not f0.isfinite().all():
            raise UserError(f"{self.weight} gives F0 that is not finite; the file is damaged, fetch it again")
        return f0

    def _decoded(self, mel: Tensor) -> Tensor:
        parts = [
            decode(salience.float(), self.cents, self.threshold, self.edges_count_twice)
            for salience in self.saliences(mel)
        ]
        return torch.cat(parts, dim=1)


def decode(salience: Tensor, cents: Tensor, threshold: float, edges_count_twice: bool = False) -> Tensor:
    """F0 in Hz ``(...,)`` of saliences ``(..., bins)``; zero where none is above ``threshold``, NaN where one is NaN.

    The pitch is the mean of the nine bins around the likeliest one, weighted by their salience. Beyond the first and
    the last bin there are none, or, with ``edges_count_twice``, that bin again. ``cents`` ``(bins,)`` count from 10 Hz.
    """
    peak, likeliest = salience.max(dim=-1)
    places = likeliest[..., None] + torch.arange(-REACH, REACH + 1, device=salience.device)
    bins = places.clamp(0, len(cents) - 1)
    weights = salience.gather(-1, bins)
    if not edges_count_twice:
        weights = weights * (places == bins)
    pitch = (weights * cents[bins]).sum(-1) / weights.sum(-1)
    return torch.where(peak <= threshold, 0.0, 10 * 2 ** (pitch / 1200))


def resample_in_blocks(audio: Tensor, from_rate: int, to_rate: int, device: str | torch.device) -> Tensor:
    """``sinc_resample`` of ``(L,)`` with a steep filter, onto ``device``, in the memory of its result and one block."""
    if from_rate == to_rate:
        return audio.to(device)
    period = from_rate // math.gcd(from_rate, to_rate)  # samples after which a sample of both rates coincides
    width = math.ceil(ZERO_CROSSINGS / ROLL_OFF * max(from_rate / to_rate, 1))
    context = -(-width // period) * period
    size = -(-SECONDS * from_rate // period) * period
    parts = []
    for block in blocks(len(audio), size, context):
        part = sinc_resample(audio[block.first : block.last].to(device), from_rate, to_rate, ZERO_CROSSINGS)
        begin = (block.begin - block.first) * to_rate // from_rate
        parts.append(part[begin : begin - (block.begin - block.end) * to_rate // from_rate])
    return torch.cat(parts)
