"""The F0 networks as ONNX graphs that take sound and return F0, with the names that MoeVoiceStudio uses.

``RMVPE.onnx`` (``rmvpe``), ``MELPE.onnx`` (``fcpe``):

=============  =================  ==================================================================================
``waveform``   float32 (1, L)     sound at the network's rate (16 kHz); L is at least 1024 samples
``threshold``  float32 (1,)       frames of lower confidence are unvoiced; ``MELPE.onnx`` has a default, 0.05, because
                                  the host passes none
``f0``         float32 (1, N)     Hz every 10 ms, zero where unvoiced; N is L // 160 + 1
``uv``         float32 (1, N)     1 where voiced; only in ``RMVPE.onnx``
=============  =================  ==================================================================================

The graphs contain the spectrogram, in double precision. The host resamples the sound, resamples the frames to its own
hop, and interpolates F0 across unvoiced frames, as for every predictor.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.audio.spectrogram import FLOOR, VOCODER_EPSILON, mel_filters
from modules.console import UserError
from modules.f0 import F0_PREDICTORS, build_f0_predictor, rmvpe
from modules.f0.fcpe import Fcpe
from modules.f0.rmvpe import Rmvpe
from modules.f0.salience import SaliencePredictor, decode
from onnxexport.graph import Graph, refuse_target, write_graph
from onnxexport.spectrum import PowerSpectrum

EXAMPLE_SECONDS = 1
EXAMPLE_HZ = 220


def export_f0(key: str, out: str | Path, *, pretrain: str | Path = "pretrain", precision: str = "fp32") -> None:
    """Write the graph of ``rmvpe`` or ``fcpe``; ``out`` is written whole or not at all.

    ``precision`` is as in ``write_graph``. Without ``fcpe.pt`` in ``pretrain`` the network of torchfcpe is exported.
    Raises UserError for another key, for a weight file that is missing or wrong, and as ``refuse_target``.
    """
    graph_path(key)
    weight = F0_PREDICTORS[key].find_weight(key, pretrain)
    refuse_target(out, *filter(None, [weight]))
    predictor = build_f0_predictor(key, folder=pretrain)
    time = torch.arange(EXAMPLE_SECONDS * predictor.network_rate) / predictor.network_rate
    inputs = {
        "waveform": 0.3 * torch.sin(2 * torch.pi * EXAMPLE_HZ * time)[None],
        "threshold": torch.tensor([predictor.threshold]),
    }
    network = GRAPHS[key](predictor)
    axes = {"waveform": {1: "samples"}, **{name: {1: "frames"} for name in network.outputs}}
    write_graph(Graph(network, inputs, network.outputs, axes, optional=network.optional), out, precision)


def graph_path(key: str, pretrain: str | Path = "pretrain") -> Path:
    """Return the path of the graph of ``key``. Raises UserError for a predictor that cannot be exported."""
    row = F0_PREDICTORS[key]
    if row.graph is None:
        raise UserError(f"the F0 predictor '{key}' cannot be exported; {' and '.join(GRAPHS)} can")
    return Path(pretrain) / row.graph


class F0Graph(nn.Module):
    """Maps sound (1, L) and a threshold (1,) to its outputs, (1, N) each."""

    outputs: tuple[str, ...]
    optional: tuple[str, ...] = ()  # inputs

    def __init__(self, predictor: SaliencePredictor):
        super().__init__()
        self.network, self.edges_count_twice = predictor.network, predictor.edges_count_twice
        self.register_buffer("cents", predictor.cents)

    def f0(self, waveform: Tensor, threshold: Tensor) -> Tensor:
        """Map sound (1, L) and a threshold (1,) to F0 (1, N)."""
        salience = self.network(self.log_mel(waveform)).reshape(1, -1, len(self.cents))
        return decode(salience, self.cents, threshold, self.edges_count_twice).reshape(1, -1)

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Map sound (1, L) to the log-mel (1, n_mels, N)."""
        raise NotImplementedError


class RmvpeGraph(F0Graph):
    outputs = ("f0", "uv")

    def __init__(self, predictor: Rmvpe):
        super().__init__(predictor)
        self.power = PowerSpectrum(rmvpe.WINDOW, rmvpe.HOP_LENGTH)
        self.register_buffer("filters", mel_filters(*rmvpe.MEL_FILTERS, torch.device("cpu"), "htk"))

    def forward(self, waveform: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        f0 = self.f0(waveform, threshold)
        return f0, (f0 > 0).float()

    def log_mel(self, waveform: Tensor) -> Tensor:
        padded = F.pad(waveform[:, None], (rmvpe.WINDOW // 2, rmvpe.WINDOW // 2), mode="reflect")[:, 0]
        return (self.filters @ self.power(padded).sqrt()).clamp(min=FLOOR).log()


class FcpeGraph(F0Graph):
    outputs, optional = ("f0",), ("threshold",)

    def __init__(self, predictor: Fcpe):
        super().__init__(predictor)
        self.mel = mel = predictor.mel
        self.power = PowerSpectrum(mel.n_fft, mel.hop_length, mel.win_length)
        filters = mel_filters(mel.sampling_rate, mel.n_fft, mel.n_mels, mel.fmin, mel.fmax, torch.device("cpu"))
        self.register_buffer("filters", filters)

    def forward(self, waveform: Tensor, threshold: Tensor) -> Tensor:
        return self.f0(waveform, threshold)

    def log_mel(self, waveform: Tensor) -> Tensor:
        excess = self.mel.win_length - self.mel.hop_length
        padded = F.pad(waveform[:, None], (excess // 2, (excess + 1) // 2), mode="reflect")[:, 0]
        spec = (self.power(padded) + VOCODER_EPSILON).sqrt()
        mel = (self.filters @ spec).clamp(min=FLOOR).log()
        return torch.cat((mel, mel[..., -1:]), dim=-1)


GRAPHS: dict[str, type[F0Graph]] = {"rmvpe": RmvpeGraph, "fcpe": FcpeGraph}
