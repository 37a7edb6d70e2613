"""The mel vocoder as a graph from the mel spectrogram of the diffusion's last graph and F0 to audio."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from onnxexport.excitation import excitation
from onnxexport.graph import Graph, refuse_target, write_graphs
from onnxexport.mel import FILE, mel_graph
from vdecoder.mel_vocoder import MelVocoder, load_mel_vocoder

EXAMPLE_FRAMES = 50


class VocoderGraph(nn.Module):
    """``MelVocoder.synthesize`` as a graph."""

    def __init__(self, vocoder: MelVocoder):
        super().__init__()
        self.network = vocoder.network
        self.mel_scale = vocoder.mel_scale

    def forward(self, c: Tensor, f0: Tensor) -> Tensor:
        """Compute audio (1, 1, hop·T) from the mel ``c`` in natural logarithms (1, M, T) and ``f0`` in Hz (1, T).

        F0 is 0 where unvoiced.
        """
        return self.network.generate(c * self.mel_scale, excitation(self.network.m_source, f0))


def export_vocoder(
    path: Path, out: Path, kind: str = "nsf-hifigan", precision: str = "fp32", mel: Path | None = None
) -> None:
    """Write the graph of a weight file to ``out``, and the mel graph beside it or to ``mel``.

    The vocoder's ``config.json`` lies beside the weights. Raises UserError as ``refuse_target``, ``load_mel_vocoder``
    and ``write_graphs``.
    """
    mel = mel or out.with_name(FILE)
    for target in (out, mel):
        refuse_target(target, path, path.with_name("config.json"))
    vocoder = load_mel_vocoder(path, kind=kind)
    write_graphs({out: vocoder_graph(vocoder), mel: mel_graph(vocoder.mel)}, precision)


def vocoder_graph_name(path: Path) -> str:
    """Return the name, without .onnx, of the graph of a weight file: that of its folder."""
    return path.resolve().parent.name


def vocoder_graph(vocoder: MelVocoder) -> Graph:
    inputs = {
        "c": torch.full((1, vocoder.n_mels, EXAMPLE_FRAMES), -5.0),
        "f0": torch.full((1, EXAMPLE_FRAMES), 220.0),
    }
    axes = {"c": {2: "frames"}, "f0": {1: "frames"}, "audio": {2: "samples"}}
    return Graph(VocoderGraph(vocoder), inputs, ("audio",), axes)
