"""Speech encoders as ONNX graphs that the ``-onnx`` keys of the table, and other hosts, run.

=========  ======================  =====================================================
``source``  float32 (1, 1, L)       16 kHz sound, L at least a window of 400 samples
``embed``   float32 (1, N, C)       features, one frame every 320 samples
=========  ======================  =====================================================

The names are those of the graphs of ContentVec that are handed round.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from modules.console import UserError
from modules.weights.weight_file import find_weight_file
from onnxexport.graph import Graph, refuse_target, write_graph
from onnxexport.whisper import WhisperGraph
from vencoder import ENCODERS, graph_file
from vencoder.encoder import SAMPLING_RATE
from vencoder.wave_transformer import WaveTransformer
from vencoder.whisper import Whisper

# Keys of graphs, and the encoder whose file each is made from; the layer is the graph's own.
MADE_FROM = {
    "vec768l12-onnx": "vec768l12",
    "vec768l9-onnx": "vec768l12",
    "vec256l12-onnx": "vec256l9",
    "vec256l9-onnx": "vec256l9",
    "hubertsoft-onnx": "hubertsoft",
}
EXAMPLE = SAMPLING_RATE  # samples


def export_encoder(key: str, out: str | Path, *, pretrain: str | Path = "pretrain", precision: str = "fp32") -> None:
    """Write the graph of an encoder whose weight file lies in ``pretrain``; ``out`` is there whole or not at all.

    ``key`` is any of the table that has a network; that of a graph (``vec256l12-onnx``) is made from the encoder's own
    file too. ``precision`` is that of ``write_graph``. Raises UserError for an unknown key, one without a network, for
    a weight file that is missing or wrong, and as ``refuse_target``.
    """
    graph_path(key, pretrain)
    row, source = ENCODERS[key], ENCODERS[MADE_FROM.get(key, key)]
    user = f"the export of the speech encoder '{key}'"
    path = find_weight_file(source.weight, pretrain, user, source.what, source.others)
    refuse_target(out, path)
    encoder = source.load()(key=key, ssl_dim=row.ssl_dim, layer=row.layer, path=path)
    network = WhisperGraph(encoder) if isinstance(encoder, Whisper) else WaveGraph(encoder.network)
    inputs = {"source": 0.1 * torch.randn(1, 1, EXAMPLE, generator=torch.Generator().manual_seed(0))}
    write_graph(Graph(network, inputs, ("embed",), {"source": {2: "samples"}, "embed": {1: "frames"}}), out, precision)


def graph_path(key: str, pretrain: str | Path = "pretrain") -> Path:
    """Where the graph of ``key`` belongs. Raises UserError as ``export_encoder`` for keys."""
    path = graph_file(key, pretrain)
    if path is None:
        raise UserError(f"the speech encoder '{key}' has no network that could be exported; it runs without any file")
    return path


class WaveGraph(nn.Module):
    """Of HuBERT, HuBERT-Soft, WavLM and DPHuBERT. (1, 1, L) -> (1, N, C)."""

    def __init__(self, network: WaveTransformer):
        super().__init__()
        self.network = network

    def forward(self, source: Tensor) -> Tensor:
        features = self.network(source[:, 0])
        return features.reshape(1, -1, self.network.width)
