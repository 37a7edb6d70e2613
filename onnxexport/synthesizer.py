"""The synthesizer as a graph from content units and F0 to audio, for MoeVoiceStudio and similar hosts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modules.config import Config, load_config
from onnxexport.excitation import excitation
from onnxexport.graph import Graph, refuse_target, write_graphs
from onnxexport.metadata import (
    encoder_flaw,
    json_text,
    noise_flaw,
    shallow_diffusion,
    synthesizer_metadata,
    timbre_metadata,
)
from onnxexport.units import expand_units
from vits.generator_file import load_generator, refuse_to_overwrite
from vits.synthesizer import Synthesizer

EXAMPLE_FRAMES = 200


def export_synthesizer(
    model: Path,
    config_path: Path,
    out: Path,
    metadata: Path,
    name: str,
    precision: str = "fp32",
    beside: Mapping[str, Any] | None = None,
) -> list[str]:
    """Write the graph of a checkpoint to ``out``, and its description for hosts, under ``name``, to ``metadata``.

    ``beside`` are the JSON's keys for timbre and diffusion model, by default those of the files that lie there. Writes
    both files or neither. Returns why MoeVoiceStudio cannot run the model, as sentences. Raises UserError if a file is
    missing, damaged or does not match the config, and as ``refuse_target`` and ``write_graph``.
    """
    refuse_target(out, model, config_path)
    refuse_to_overwrite(metadata, model, config_path)
    config = load_config(config_path)
    graph = synthesizer_graph(load_generator(model, config), config)
    if beside is None:
        beside = timbre_metadata(out.parent, len(config.spk)) | shallow_diffusion(metadata)
    values = synthesizer_metadata(name, config, config_path, beside)
    write_graphs({out: graph}, precision, {metadata: json_text(values)})
    flaws = encoder_flaw(config.model.speech_encoder, config.model.ssl_dim, config_path), noise_flaw(config)
    return [flaw for flaw in flaws if flaw]


class SynthesizerGraph(nn.Module):
    """``Synthesizer.infer`` as a graph.

    The host assigns content units to frames by an index, and samples and scales the latent noise. The graph samples the
    source's random numbers.
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
        """Compute audio (1, 1, hop·T).

        Args:
            c: content at the encoder's rate (1, N, C).
            f0: Hz (1, T), interpolated across unvoiced frames.
            mel2ph: number of each frame's unit, counted from 1; 0 stands for a unit of zeros (1, T).
            uv: (1, T), 1 where voiced.
            noise: (1, inter, T), normal, multiplied by ``noice_scale``.
            sid: the speaker's row (1,), or weights of all speakers in each frame (T, S).
            vol: RMS (1, T), for models with loudness embedding.
        """
        network = self.network
        g = network.speaker_condition(sid if sid.is_floating_point() else sid[:, None])
        mask = torch.ones_like(f0)[:, None]
        x = network.content(expand_units(c, mel2ph).transpose(1, 2), uv, mask, vol)
        z = network.latent(x, f0, mask, g, noise)
        return network.dec.generate(z, excitation(network.dec.m_source, f0), g)


def synthesizer_graph(network: Synthesizer, config: Config) -> Graph:
    """Build the graph of a loaded network, which must not be used afterwards.

    With two speakers or more the graph takes weights in the order of ``spk``. A single speaker has place 0 in the
    host, whatever its row, so every row becomes that speaker's. The network's speaker embedding is replaced.
    """
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
    rows = torch.tensor(list(config.spk.values()))
    if len(rows) == 1:
        rows = rows.expand(network.emb_g.num_embeddings)
    if len(rows):
        network.emb_g = nn.Embedding.from_pretrained(network.emb_g.weight[rows])
    if len(config.spk) > 1:
        inputs["sid"] = torch.full((frames, len(rows)), 1 / len(rows))
        axes["sid"] = {0: "frames"}
    if model.vol_embedding:
        inputs["vol"] = torch.full((1, frames), 0.1)
        axes["vol"] = {1: "frames"}
    facts = {"sampling_rate": config.data.sampling_rate, "hop_length": config.data.hop_length}
    return Graph(SynthesizerGraph(network), inputs, ("audio",), axes, facts)
