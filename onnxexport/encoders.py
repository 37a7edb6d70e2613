"""Speech encoders as ONNX graphs, for the ``-onnx`` keys of the table and for other hosts.

=========  ======================  =====================================================
``source``  float32 (1, 1, L)       sound at 16 kHz; L is at least 400 samples
``embed``   float32 (1, N, C)       features, one frame every 320 samples
=========  ======================  =====================================================

Inputs and outputs have the names that the published graphs of ContentVec use.
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

# Key of each graph, and of the encoder whose weight file it is exported from; the layer is the graph's own.
SOURCE_KEYS = {
    "vec768l12-onnx": "vec768l12",
    "vec768l9-onnx": "vec768l12",
    "vec256l12-onnx": "vec256l9",
    "vec256l9-onnx": "vec256l9",
    "hubertsoft-onnx": "hubertsoft",
}
EXAMPLE = SAMPLING_RATE  # samples


def export_encoder(key: str, out: str | Path, *, pretrain: str | Path = "pretrain", precision: str = "fp32") -> None:
    """Write the graph of an encoder whose weight file lies in ``pretrain``; ``out`` is written whole or not at all.

    ``key`` is any key of the table that has a network. A graph's key (``vec256l12-onnx``) uses the encoder's weight
    file as well. ``precision`` is as in ``write_graph``. Raises UserError for a key that is unknown or has no network,
    for a weight file that is missing or wrong, and as ``refuse_target``.
    """
    graph_path(key, pretrain)
    row, source = ENCODERS[key], ENCODERS[SOURCE_KEYS.get(key, key)]
    user = f"the export of the speech encoder '{key}'"
    command = f"python download_pretrain.py --encoder {SOURCE_KEYS.get(key, key)}"
    path = find_weight_file(source.weight, pretrain, user, source.what, command, source.others)
    refuse_target(out, path)
    encoder = source.load()(key=key, ssl_dim=row.ssl_dim, layer=row.layer, path=path)
    network = WhisperGraph(encoder) if isinstance(encoder, Whisper) else WaveGraph(encoder.network)
    inputs = {"source": 0.1 * torch.randn(1, 1, EXAMPLE, generator=torch.Generator().manual_seed(0))}
    write_graph(Graph(network, inputs, ("embed",), {"source": {2: "samples"}, "embed": {1: "frames"}}), out, precision)


def graph_path(key: str, pretrain: str | Path = "pretrain") -> Path:
    """Return the path of the graph of ``key``. Raises UserError for a key that is unknown or has no network."""
    path = graph_file(key, pretrain)
    if path is None:
        raise UserError(f"the speech encoder '{key}' has no network that could be exported; it runs without any file")
    return path


class WaveGraph(nn.Module):
    """The graph of HuBERT, HuBERT-Soft, WavLM and DPHuBERT: (1, 1, L) -> (1, N, C)."""

    def __init__(self, network: WaveTransformer):
        super().__init__()
        self.network = network

    def forward(self, source: Tensor) -> Tensor:
        features = self.network(source[:, 0])
        return features.reshape(1, -1, self.network.width)
