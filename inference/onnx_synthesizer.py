"""The synthesizer as an ONNX graph of ``onnx_export.py``, run by ONNX Runtime in place of the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from modules.config import Config
from modules.console import UserError, option
from modules.onnx.random_inputs import RANDOM_OPS, random_ops_as_inputs
from modules.onnx.session import FLOATS, open_session, run
from modules.onnx.split import Split, split_before_decoder
from vdecoder.block_plan import context_frames
from vdecoder.source import BLOCK_FRAMES
from vits.synthesizer import PUBLISHED_SEED

BLOCK = 172  # frames that are decoded at once
SNAKE_REACH = 5  # samples; the activation of nsf-snake-hifigan, the widest
TRACKS = 9  # of the sine source: the fundamental and its overtones
Progress = Callable[[int], None]
RANDOM_INPUTS = ("random_0", "random_1")  # names of the inputs that expose_random_inputs adds
INPUTS = {"c", "f0", "mel2ph", "uv", "noise", "sid"}  # and "vol" if the model has a loudness embedding


class DecoderGraph(NamedTuple):
    """The part of a graph that decodes, with the names of its inputs."""

    session: Any
    latent: str
    speaker: str
    source: str


class OnnxSynthesizer:
    """``Synthesizer.infer`` as an ONNX graph, which contains everything but the F0 predictor.

    The same generator gives the same sound as with the network: the random numbers of the sine source are sampled here
    and passed to the graph. A graph of another program that samples in another order gets fixed seeds, so every run
    gives the same sound.

    Args:
        path: the graph.
        config: of its model; it names the speakers.
        device: a CUDA device is used if ONNX Runtime is built for it; everything else runs on the CPU.

    Raises UserError if onnx or onnxruntime is not installed, or the file is not a synthesizer's graph or does not match
    the config.
    """

    def __init__(self, path: str | Path, config: Config, device: torch.device):
        self.path, self.device = path, device
        self.hop_length = config.data.hop_length
        self.session, self.decoder = self._open(device)
        self.inputs = {one.name: one for one in self.session.get_inputs()}
        if set(self.inputs) - {"vol", *RANDOM_INPUTS} != INPUTS:
            found = ", ".join(self.inputs)
            raise UserError(f"{path} is no synthesizer's graph: its inputs are {found}; onnx_export.py makes one")
        self.context = context_frames(config.model, activation_reach=SNAKE_REACH)
        self.mixes = self.inputs["sid"].type in FLOATS
        self.rows = list(config.spk.values())
        metadata = self.session.get_modelmeta().custom_metadata_map  # empty in graphs of other programs
        rate, hop = str(config.data.sampling_rate), str(config.data.hop_length)
        facts = {
            "Hz": (metadata.get("sampling_rate", rate), rate),
            "samples a frame": (metadata.get("hop_length", hop), hop),
            "features a frame": (self.inputs["c"].shape[-1], config.model.ssl_dim),
            "latent channels": (self.inputs["noise"].shape[1], config.model.inter_channels),
            "inputs of loudness": (int("vol" in self.inputs), int(config.model.vol_embedding)),
        }
        if self.mixes:
            facts["speakers"] = (self.inputs["sid"].shape[-1], len(self.rows))
        for what, (in_graph, in_config) in facts.items():
            if in_graph != in_config:
                raise UserError(f"{path} has {in_graph} {what}, its config {in_config}; {_hint()}")

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
        needed: slice = slice(None),
        on_progress: Progress | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run the graph on one song; arguments and result are those of ``Synthesizer.infer``.

        Raises ValueError for ``predict_f0``, and UserError as ``speakers`` does and if the graph's input or output does
        not match the config.
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
            **sample_source(frames, self.hop_length, generator),
        }
        arrays = {name: self._array(name, values[name]) for name in self.inputs}
        outputs = run(self.session, self.path, None, arrays, f"if its config is another model's, {_hint()}")
        audio = self._decode(*outputs, needed, on_progress) if self.decoder else outputs[0]
        if audio.shape[-1] != frames * self.hop_length:
            raise self._misfit(audio.shape[-1], frames)
        return torch.from_numpy(audio).float().to(self.device), f0

    def _open(self, device: torch.device) -> tuple[Any, DecoderGraph | None]:
        """Open the graph, in two parts if its decoder is known: the part before it, and the decoder."""
        found: list[Split | None] = []

        def head(model: Any) -> Any:
            model = expose_random_inputs(model)
            found.append(split_before_decoder(model))
            return found[0].head if found[0] else model

        session = open_session(self.path, device, head)
        if not (split := found[0]):
            return session, None
        decoder = open_session(self.path, device, lambda _: split.decoder)
        return session, DecoderGraph(decoder, split.latent, split.speaker, split.source)

    def _decode(
        self, latent: np.ndarray, speaker: np.ndarray, source: np.ndarray, needed: slice, on_progress: Progress | None
    ) -> np.ndarray:
        """Decode the needed frames in blocks of BLOCK, with the context that they need: (1, 1, hop·T)."""
        frames, hop = latent.shape[2], self.hop_length
        if source.shape[2] != frames * hop:
            raise self._misfit(source.shape[2], frames)
        begin, end, _ = needed.indices(frames)
        audio = np.zeros((1, 1, frames * hop), np.float32)
        for first in range(begin, end, BLOCK):
            last = min(first + BLOCK, end)
            window = slice(max(0, first - self.context), last + self.context)
            values = {
                self.decoder.latent: latent[:, :, window],
                self.decoder.speaker: speaker[:, :, window] if speaker.shape[2] > 1 else speaker,
                self.decoder.source: source[:, :, window.start * hop : window.stop * hop],
            }
            block = run(self.decoder.session, self.path, None, values, f"if its config is another's, {_hint()}")[0]
            start = (first - window.start) * hop
            audio[:, :, first * hop : last * hop] = block[:, :, start : start + (last - first) * hop]
            if on_progress:
                on_progress(last)
        return audio

    def _misfit(self, samples: int, frames: int) -> UserError:
        given = samples / frames
        return UserError(f"{self.path} gives {given:g} samples a frame, its config {self.hop_length}; {_hint()}")

    def speakers(self, speaker: Tensor, frames: int) -> Tensor:
        """Convert ids (1, 1), or weights (T, rows) of the embedding's rows, into the graph's rows or weights.

        Raises UserError for weights if the graph takes one speaker for the whole song.
        """
        if self.mixes:
            if not speaker.is_floating_point():
                rows = torch.tensor(self.rows, device=speaker.device)
                return (speaker == rows).float().expand(frames, -1)
            return speaker[:, self.rows]
        if not speaker.is_floating_point():
            return speaker[0]
        if len(self.rows) != 1:
            raise UserError(f"{self.path} takes no mix of speakers; a model has one if its config names several")
        return torch.tensor(self.rows)

    def _array(self, name: str, value: Tensor) -> np.ndarray:
        kind = FLOATS.get(self.inputs[name].type, np.int64)
        return np.ascontiguousarray(value.cpu().numpy(), dtype=kind)


def sample_source(frames: int, hop_length: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Sample RANDOM_INPUTS as ``HarmonicSource`` does: the first phases, then the noise."""
    first = torch.rand(1, TRACKS, generator=generator)
    blocks = (min(BLOCK_FRAMES, frames - at) for at in range(0, frames, BLOCK_FRAMES))
    noise = [torch.randn(1, block * hop_length, TRACKS, generator=generator) for block in blocks]
    return dict(zip(RANDOM_INPUTS, (first, torch.cat(noise, dim=1)), strict=True))


def expose_random_inputs(model: Any) -> Any:
    """Add RANDOM_INPUTS to a graph (``onnx.ModelProto``), or seeds if it samples in another order."""
    from onnx import helper

    random_nodes = [node for node in model.graph.node if node.op_type in RANDOM_OPS]
    shapes = [list(one.ints) for node in random_nodes for one in node.attribute if one.name == "shape"]
    if [node.op_type for node in random_nodes] == ["RandomUniform", "RandomNormalLike"] and shapes == [[1, TRACKS]]:
        return random_ops_as_inputs(model)
    unseeded = [node for node in random_nodes if all(one.name != "seed" for one in node.attribute)]
    for number, node in enumerate(unseeded):
        node.attribute.append(helper.make_attribute("seed", float(PUBLISHED_SEED + number)))
    return model


def _hint() -> str:
    return f"name that model's config with {option('config_path')}"
