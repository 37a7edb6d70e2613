"""RMVPE: a U-Net on the spectrogram, robust against noise and accompaniment."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from modules.f0.blocks import blocks
from modules.f0.rmvpe_network import BINS, CELL, MELS, RmvpeNetwork
from modules.f0.salience import SaliencePredictor, log
from modules.spectrogram import FLOOR, mel_filters
from modules.weight_file import assign, read_weight_file

SAMPLING_RATE = 16000
WINDOW, HOP_LENGTH = 1024, 160  # samples
MEL_FILTERS = SAMPLING_RATE, WINDOW, MELS, 30.0, 8000.0  # the last two in Hz
BIN_WIDTH, FIRST_BIN = 20, 1997.3794084376191  # cents above 10 Hz
BLOCK = 8192  # frames whose spectrum is taken at once


class Rmvpe(SaliencePredictor):
    """The network with the weights of ``pretrain/rmvpe.pt``, read once a process."""

    cell = CELL

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.network = load_network(self.weight, torch.device(self.device))

    def log_mel(self, wave: Tensor) -> Tensor:
        return log_mel(wave)

    def saliences(self, mel: Tensor) -> Iterator[Tensor]:
        return self.network.saliences(mel)

    @property
    def cents(self) -> Tensor:
        return BIN_WIDTH * torch.arange(BINS, device=self.device) + FIRST_BIN


@functools.lru_cache(maxsize=1)
def load_network(path: Path, device: torch.device) -> RmvpeNetwork:
    """The network with a file's weights, ready for inference.

    Raises UserError when the file is truncated, refused, of another family, or not whole.
    """
    weights = read_weight_file(path, "RMVPE")
    with torch.device("meta"):
        network = RmvpeNetwork()
    assign(network, weights, path, "RMVPE")
    log.info("F0 predictor rmvpe: %s", path)
    return network.fold().to(device)


def log_mel(wave: Tensor) -> Tensor:
    """``(B, L)`` at 16 kHz -> ``(B, 128, 1 + L // 160)``: natural logarithm of magnitudes, the floor 1e-5; L > 512."""
    padded = F.pad(wave.float()[:, None], (WINDOW // 2, WINDOW // 2), mode="reflect")[:, 0]
    window = torch.hann_window(WINDOW, device=wave.device)
    filters = mel_filters(*MEL_FILTERS, wave.device, "htk")
    parts = []
    for block in blocks(1 + wave.shape[-1] // HOP_LENGTH, BLOCK):
        part = padded[:, block.begin * HOP_LENGTH : (block.end - 1) * HOP_LENGTH + WINDOW]
        spec = torch.stft(part, WINDOW, HOP_LENGTH, window=window, center=False, return_complex=True).abs()
        parts.append((filters @ spec).clamp(min=FLOOR).log())
    return torch.cat(parts, dim=-1)
