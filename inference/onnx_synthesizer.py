"""The synthesizer as the graph that ``onnx_export.py`` writes, run by ONNX Runtime in the place of the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modules.config import Config
from modules.console import UserError, option
from modules.onnx.random_inputs import RANDOM_OPS, random_ops_as_inputs
from modules.onnx.session import FLOATS, open_session, run
from vdecoder.source import BLOCK_FRAMES
from vits.synthesizer import PUBLISHED_SEED

TRACKS = 9  # of the sine source: the fundamental and its overtones
SOURCE_DRAWS = ("random_0", "random_1")  # inputs that own_draws makes
INPUTS = {"c", "f0", "mel2ph", "uv", "noise", "sid"}  # and "vol" of models with loudness embedding


class OnnxSynthesizer:
    """``infer`` of the network by its graph, which holds all but the choice of F0.

    The same generator gives the same sound as with the network: the numbers that the graph would draw for its sine
    source are drawn here. A graph of another program's that draws otherwise is given a seed of its own, the same on
    every run.

    Args:
        path: the graph.
        config: of the model that it was made of; it names the speakers.
        device: CUDA devices are used when ONNX Runtime is built for them; everything else computes on the CPU.

    Raises UserError when onnx or onnxruntime is not installed, and when the file is no synthesizer's graph or another
    config's.
    """

    def __init__(self, path: str | Path, config: Config, device: torch.device):
        self.path, self.device = path, device
        self.hop_length = config.data.hop_length
        self.session = open_session(path, device, own_draws)
        self.inputs = {one.name: one for one in self.session.get_inputs()}
        if set(self.inputs) - {"vol", *SOURCE_DRAWS} != INPUTS:
            found = ", ".join(self.inputs)
            raise UserError(f"{path} is no synthesizer's graph, for its inputs are {found}; onnx_export.py makes one")
        self.mixes = self.inputs["sid"].type in FLOATS
        self.rows = list(config.spk.values())
        told = self.session.get_modelmeta().custom_metadata_map  # nothing in graphs of other programs
        rate, hop = str(config.data.sampling_rate), str(config.data.hop_length)
        facts = {
            "Hz": (told.get("sampling_rate", rate), rate),
            "samples a frame": (told.get("hop_length", hop), hop),
            "features a frame": (self.inputs["c"].shape[-1], config.model.ssl_dim),
            "latent channels": (self.inputs["noise"].shape[1], config.model.inter_channels),
            "inputs of loudness": (int("vol" in self.inputs), int(config.model.vol_embedding)),
        }
        if self.mixes:
            facts["speakers"] = (self.inputs["sid"].shape[-1], len(self.rows))
        for what, (ours, theirs) in facts.items():
            if ours != theirs:
                raise UserError(f"{path} has {ours} {what}, its config {theirs}; {_cure()}")

    def infer(
        self,
        c: Tensor,
        f0: Tensor,
        uv: Tensor,
        speaker: Tensor,
        noice_scale: float = 0.35,
        generator: torch.Generator | None = None,
        predict_f0: bool = False,
        volume: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As ``Synthesizer.infer`` for one song, but for ``predict_f0``, which a graph cannot (ValueError).

        Raises UserError as ``speakers``, and when the graph is of another config in what only a song shows.
        """
        if predict_f0:
            raise ValueError("a synthesizer's graph takes F0 and does not predict it")
        frames = c.shape[2]
        generator = generator or torch.Generator().manual_seed(PUBLISHED_SEED)
        noise = torch.randn(1, self.inputs["noise"].shape[1], frames, generator=generator)
        values = {
            "c": c.transpose(1, 2),
            "f0": f0,
            "mel2ph": torch.arange(1, frames + 1)[None],
            "uv": uv,
            "noise": noise * noice_scale,
            "sid": self.speakers(speaker, frames),
            "vol": volume,
            **source_draws(frames, self.hop_length, generator),
        }
        arrays = {name: self._array(name, values[name]) for name in self.inputs}
        audio = run(self.session, self.path, None, arrays, f"if its config is another model's, {_cure()}")[0]
        if audio.shape[-1] != frames * self.hop_length:
            given = audio.shape[-1] / frames
            raise UserError(f"{self.path} gives {given:g} samples a frame, its config {self.hop_length}; {_cure()}")
        return torch.from_numpy(audio).float().to(self.device), f0

    def speakers(self, speaker: Tensor, frames: int) -> Tensor:
        """What the graph takes for ids (1, 1), or for weights (T, rows) of the embedding's rows: rows or weights.

        Raises UserError for weights when the graph takes one speaker for the whole song.
        """
        if self.mixes:
            if not speaker.is_floating_point():
                rows = torch.tensor(self.rows, device=speaker.device)
                return (speaker == rows).float().expand(frames, -1)
            return speaker[:, self.rows]
        if not speaker.is_floating_point():
            return speaker[0]
        if len(self.rows) != 1:
            raise UserError(f"{self.path} knows no mix of speakers; a model has one when its config names several")
        return torch.tensor(self.rows)

    def _array(self, name: str, value: Tensor) -> np.ndarray:
        kind = FLOATS.get(self.inputs[name].type, np.int64)
        return np.ascontiguousarray(value.cpu().numpy(), dtype=kind)


def source_draws(frames: int, hop_length: int, generator: torch.Generator) -> dict[str, Tensor]:
    """SOURCE_DRAWS: the sine source's first phases and its noise, drawn as ``HarmonicSource`` does."""
    first = torch.rand(1, TRACKS, generator=generator)
    blocks = (min(BLOCK_FRAMES, frames - at) for at in range(0, frames, BLOCK_FRAMES))
    noise = [torch.randn(1, block * hop_length, TRACKS, generator=generator) for block in blocks]
    return dict(zip(SOURCE_DRAWS, (first, torch.cat(noise, dim=1)), strict=True))


def own_draws(model: Any) -> Any:
    """A graph (``onnx.ModelProto``) with SOURCE_DRAWS for inputs or, where it draws otherwise, with seeds."""
    from onnx import helper

    draws = [node for node in model.graph.node if node.op_type in RANDOM_OPS]
    shapes = [list(one.ints) for node in draws for one in node.attribute if one.name == "shape"]
    if [node.op_type for node in draws] == ["RandomUniform", "RandomNormalLike"] and shapes == [[1, TRACKS]]:
        return random_ops_as_inputs(model)
    unseeded = [node for node in draws if all(one.name != "seed" for one in node.attribute)]
    for number, node in enumerate(unseeded):
        node.attribute.append(helper.make_attribute("seed", float(PUBLISHED_SEED + number)))
    return model


def _cure() -> str:
    return f"name that model's config with {option('config_path')}"
