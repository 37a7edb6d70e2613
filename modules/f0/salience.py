"""What the pitch networks share: sound at their rate in, the salience of 360 pitches a frame, F0 out of it."""

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

ZERO_CROSSINGS = 128  # of the resampling filter on one side; the networks were trained behind one as steep
REACH = 4  # bins on both sides of the likeliest one that F0 is averaged over


class SaliencePredictor(F0Predictor):
    """A network that says for each frame and each of 360 pitches how likely that pitch is sung.

    On CUDA devices it computes in half precision; what comes out not finite is computed again in float32.
    """

    network_rate = 16000  # Hz
    window = 1024  # samples at that rate: a shorter sound is too short to have a pitch
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
        """What the network sees of ``(B, L)``: ``(B, n_mels, N)``, a frame every 10 ms."""

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
        return decode(self.network(mel).float(), self.cents, self.threshold, self.edges_count_twice)


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
