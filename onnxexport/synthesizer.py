"""The synthesizer's graph: content units and pitch to audio, as MoeVoiceStudio and its kin ask for it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from modules.config import Config, load_config
from onnxexport.excitation import excitation
from onnxexport.graph import Graph, refuse_target, write_graphs
from onnxexport.metadata import metadata_text
from onnxexport.units import expand_units
from vits.generator_file import load_generator, refuse_to_overwrite
from vits.synthesizer import Synthesizer

EXAMPLE_FRAMES = 200


def export_synthesizer(
    model: Path, config_path: Path, out: Path, metadata: Path, name: str, precision: str = "fp32"
) -> None:
    """Write the graph of a checkpoint to ``out`` and what hosts have to know of it, under ``name``, to ``metadata``.

    Both are there in the end, or neither. Raises UserError when a file is missing, broken or of another config, and as
    ``refuse_target`` and ``write_graph``.
    """
    refuse_target(out, model, config_path)
    refuse_to_overwrite(metadata, model, config_path)
    config = load_config(config_path)
    network = load_generator(model, config)
    write_graphs({out: synthesizer_graph(network, config)}, precision, {metadata: metadata_text(name, config)})


class SynthesizerGraph(nn.Module):
    """``Synthesizer.infer`` as a graph computes it.

    The host brings the content to frames by an index and draws the latent noise, already scaled. The source's random
    numbers are drawn inside.
    """

    def __init__(self, network: Synthesizer):
        super().__init__()
        self.network = network

    def forward(
        self,
        c: Tensor,
        f0: Tensor,
        mel2ph: Tensor,
        uv: Tensor,
        noise: Tensor,
        sid: Tensor,
        vol: Tensor | None = None,
    ) -> Tensor:
        """To audio (1, 1, hop·T).

        Args:
            c: content at the encoder's rate (1, N, C).
            f0: Hz (1, T), interpolated through unvoiced frames.
            mel2ph: for each frame the number of its unit, from 1; 0 stands for a unit of zeros (1, T).
            uv: (1, T), 1 where voiced.
            noise: (1, inter, T), of the standard deviation that ``noice_scale`` would give it.
            sid: the speaker's row (1,), or weights of every speaker for each frame (T, S).
            vol: (1, T), of models with loudness embedding.
        """
        network = self.network
        g = network.speaker_condition(sid if sid.is_floating_point() else sid[:, None])
        mask = torch.ones_like(f0)[:, None]
        x = network.content(expand_units(c, mel2ph).transpose(1, 2), uv, mask, vol)
        z = network.latent(x, f0, mask, g, noise)
        return network.dec.generate(z, excitation(network.dec.m_source, f0), g)


def synthesizer_graph(network: Synthesizer, config: Config) -> Graph:
    """Of a network in its final form. With two speakers or more, the form that mixes them in the order of ``spk``; the
    network is given away then, for its table of speakers is brought into that order."""
    model, frames = config.model, EXAMPLE_FRAMES
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "c": torch.randn(1, frames, model.ssl_dim, generator=generator),
        "f0": torch.full((1, frames), 220.0),
        "mel2ph": torch.arange(1, frames + 1)[None],
        "uv": torch.ones(1, frames),
        "noise": torch.randn(1, model.inter_channels, frames, generator=generator),
        "sid": torch.zeros(1, dtype=torch.long),
    }
    axes = {
        "c": {0: "batch", 1: "units"},
        **{name: {1: "frames"} for name in ("f0", "mel2ph", "uv")},
        "noise": {2: "frames"},
        "audio": {2: "samples"},
    }
    if len(config.spk) > 1:
        rows = torch.tensor(list(config.spk.values()))
        network.emb_g = nn.Embedding.from_pretrained(network.emb_g.weight[rows])
        inputs["sid"] = torch.full((frames, len(rows)), 1 / len(rows))
        axes["sid"] = {0: "frames"}
    if model.vol_embedding:
        inputs["vol"] = torch.full((1, frames), 0.1)
        axes["vol"] = {1: "frames"}
    facts = {"sampling_rate": config.data.sampling_rate, "hop_length": config.data.hop_length}
    return Graph(SynthesizerGraph(network), inputs, ("audio",), axes, facts)
