"""Base of the pitch networks: resampling, the salience of 360 pitches per frame, and its decoding to F0."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from modules.audio.files import sinc_resample
from modules.console import UserError, get_logger
from modules.f0 import F0Predictor
from modules.f0.contour import resize_nearest

log = get_logger("f0")

ZERO_CROSSINGS = 128  # on one side of the resampling filter; as steep as in the networks' training
REACH = 4  # bins on each side of the likeliest one over which F0 is averaged


class SaliencePredictor(F0Predictor):
    """A network that gives the salience of 360 pitches in each frame.

    On CUDA devices it computes in half precision; if the result is not finite, again in float32.
    """

    network_rate = 16000  # Hz
    window = 1024  # samples at that rate; shorter audio is unvoiced
    network: nn.Module  # ``(B, n_mels, N)`` -> the salience ``(B, N, 360)`` in [0, 1]
    edges_count_twice = False  # see ``decode``

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.half = torch.device(self.device).type == "cuda"

    @torch.inference_mode()
    def contour(self, audio: np.ndarray, frames: int) -> np.ndarray:
        if len(audio) * self.network_rate < self.window * self.sampling_rate or not audio.any():
            return np.zeros(frames, np.float32)
        wave = torch.from_numpy(audio).to(self.device)
        wave = sinc_resample(wave, self.sampling_rate, self.network_rate, ZERO_CROSSINGS)
        return resize_nearest(self._track(self.log_mel(wave[None]))[0].cpu().numpy(), frames)

    @abstractmethod
    def log_mel(self, wave: Tensor) -> Tensor:
        """Map ``(B, L)`` to the network's input ``(B, n_mels, N)``, a frame every 10 ms."""

    @property
    @abstractmethod
    def cents(self) -> Tensor:
        """The pitch of each of the 360 bins, in cents above 10 Hz."""

    def _track(self, mel: Tensor) -> Tensor:
        """Map ``(B, n_mels, N)`` to F0 in Hz ``(B, N)``, zero where unvoiced."""
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
        return decode(self.network(mel).float(), self.cents, self.threshold, self.edges_count_twice)


def decode(salience: Tensor, cents: Tensor, threshold: float, edges_count_twice: bool = False) -> Tensor:
    """Map saliences ``(..., bins)`` to F0 in Hz ``(...,)``; zero if none is above ``threshold``, NaN if one is NaN.

    The pitch is the mean of the nine bins around the likeliest one, weighted by salience. Neighbours outside the range
    are ignored, or, with ``edges_count_twice``, replaced by the edge bin. ``cents`` ``(bins,)`` are above 10 Hz.
    """
    peak, likeliest = salience.max(dim=-1)
    neighbours = likeliest[..., None] + torch.arange(-REACH, REACH + 1, device=salience.device)
    bins = neighbours.clamp(0, len(cents) - 1)
    weights = salience.gather(-1, bins)
    if not edges_count_twice:
        weights = weights * (neighbours == bins)
    pitch = (weights * cents[bins]).sum(-1) / weights.sum(-1)
    return torch.where(peak <= threshold, 0.0, 10 * 2 ** (pitch / 1200))
