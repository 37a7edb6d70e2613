"""RMVPE: a U-Net on the spectrogram, robust against noise and accompaniment."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from modules.audio.spectrogram import FLOOR, mel_filters
from modules.f0.rmvpe_network import BINS, MELS, RmvpeNetwork
from modules.f0.salience import SaliencePredictor, log
from modules.shared import shared
from modules.weights.weight_file import assign, read_weight_file

SAMPLING_RATE = 16000
WINDOW, HOP_LENGTH = 1024, 160  # samples
MEL_FILTERS = SAMPLING_RATE, WINDOW, MELS, 30.0, 8000.0  # the last two in Hz
BIN_WIDTH, FIRST_BIN = 20, 1997.3794084376191  # cents above 10 Hz


class Rmvpe(SaliencePredictor):
    """The network with the weights of ``pretrain/rmvpe.pt``, read once per process."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.network = load_network(self.weight, torch.device(self.device))

    def log_mel(self, wave: Tensor) -> Tensor:
        return log_mel(wave)

    @property
    def cents(self) -> Tensor:
        return BIN_WIDTH * torch.arange(BINS, device=self.device) + FIRST_BIN


@shared
def load_network(path: Path, device: torch.device) -> RmvpeNetwork:
    """Load a weight file; returns the network, ready for inference.

    Raises UserError when the file is truncated, unsafe, of another model, or incomplete.
    """
    weights = read_weight_file(path, "RMVPE")
    with torch.device("meta"):
        network = RmvpeNetwork()
    assign(network, weights, path, "RMVPE", copy=False)
    log.info("F0 predictor rmvpe: %s", path)
    channels_last = device.type == "cpu"  # faster there; not measured on others
    network.fold(torch.channels_last if channels_last else torch.contiguous_format)
    return network.requires_grad_(False).to(device)


def log_mel(wave: Tensor) -> Tensor:
    """Map ``(B, L)`` at 16 kHz to ``(B, 128, 1 + L // 160)``: natural log of magnitudes, floor 1e-5; L > 512."""
    window = torch.hann_window(WINDOW, device=wave.device)
    spec = torch.stft(wave.float(), WINDOW, HOP_LENGTH, window=window, return_complex=True).abs()
    return (mel_filters(*MEL_FILTERS, wave.device, "htk") @ spec).clamp(min=FLOOR).log()
