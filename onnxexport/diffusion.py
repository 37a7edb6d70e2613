"""The diffusion model as four graphs, between which the host runs the sampler.

The host runs ``encoder`` once, ``denoise`` and ``pred`` in each step, and ``after`` at the end. Between ``denoise`` and
``pred`` it combines the predicted noise of this and earlier steps, as in PLMS (https://arxiv.org/abs/2202.09778).
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion.samplers import follow_noise
from diffusion.schedule import Level
from diffusion.unit2mel import MelDiffusion, Unit2Mel, load_unit2mel
from modules.config import load_diffusion_config
from onnxexport.graph import SUFFIX, Graph, refuse_target, write_graphs
from onnxexport.units import expand_units

EXAMPLE_FRAMES = 50


def export_diffusion(model: Path, config_path: Path, prefix: Path, precision: str = "fp32") -> None:
    """Write the graphs of a checkpoint to ``<prefix>_<part>.onnx``.

    Raises UserError if a file is missing, damaged or does not match the config, and as ``refuse_target`` and
    ``write_graphs``.
    """
    config = load_diffusion_config(config_path)
    graphs = diffusion_graphs(load_unit2mel(model, config, None, "cpu"))
    files = {prefix.with_name(f"{prefix.name}_{part}{SUFFIX}"): graph for part, graph in graphs.items()}
    for path in files:
        refuse_target(path, model, config_path)
    write_graphs(files, precision)


class EncoderGraph(nn.Module):
    """Computes the condition of the denoiser."""

    def __init__(self, network: Unit2Mel):
        super().__init__()
        self.network = network

    def forward(self, hubert: Tensor, mel2ph: Tensor, f0: Tensor, volume: Tensor, spk_mix: Tensor) -> Tensor:
        """Compute the condition (1, H, T).

        Args:
            hubert: units (1, N, C).
            mel2ph: number of each frame's unit, counted from 1; 0 stands for a unit of zeros (1, T).
            f0: Hz (1, T).
            volume: (1, T).
            spk_mix: weights of all speakers in each frame (T, S); S is 0 in a model of one speaker.
        """
        units = expand_units(hubert, mel2ph)
        return self.network.condition(units, f0[:, :, None], volume[:, :, None], spk_mix)


class DenoiseGraph(nn.Module):
    """Predicts the noise (1, 1, M, T) in ``noise`` (1, 1, M, T) at step ``time`` (1,) from the condition (1, H, T)."""

    def __init__(self, decoder: MelDiffusion):
        super().__init__()
        self.denoise_fn = decoder.denoise_fn

    def forward(self, noise: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        return self.denoise_fn(noise[:, 0], time, condition)[:, None]


class PredGraph(nn.Module):
    """Moves (1, 1, M, T) from step ``time`` (1,) to ``time_prev`` along constant noise."""

    def __init__(self, decoder: MelDiffusion):
        super().__init__()
        levels = [decoder.schedule.at(step) for step in range(len(decoder.schedule))]
        self.register_buffer("alphas", torch.tensor([level.alpha for level in levels]))
        self.register_buffer("sigmas", torch.tensor([level.sigma for level in levels]))

    def forward(self, noise: Tensor, noise_pred: Tensor, time: Tensor, time_prev: Tensor) -> Tensor:
        here, there = (Level(step, self.alphas[step], self.sigmas[step]) for step in (time, time_prev))
        return follow_noise(noise, noise_pred, here, there)


class AfterGraph(nn.Module):
    """Converts the last step's output (1, 1, M, T) into a mel spectrogram in natural logarithms (1, M, T)."""

    def __init__(self, decoder: MelDiffusion):
        super().__init__()
        self.decoder = decoder

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder.denormalize(x[:, 0]).transpose(1, 2)


def diffusion_graphs(network: Unit2Mel) -> dict[str, Graph]:
    """Return the four graphs by the last part of their file names."""
    decoder, frames = network.decoder, EXAMPLE_FRAMES
    width, hidden = network.unit_embed.in_features, network.unit_embed.out_features
    speakers = 0 if network.spk_embed is None else network.spk_embed.num_embeddings
    randn = functools.partial(torch.randn, generator=torch.Generator().manual_seed(0))
    mel, step = randn(1, 1, decoder.denoise_fn.n_mels, frames), torch.tensor([network.timesteps // 2])
    curve, mel_axes = torch.full((1, frames), 220.0), {3: "frames"}
    encoder = {
        "hubert": randn(1, frames, width),
        "mel2ph": torch.arange(1, frames + 1)[None],
        "f0": curve,
        "volume": curve / 1000,
        "spk_mix": torch.full((frames, speakers), 1 / max(1, speakers)),
    }
    axes = {name: {1: "frames"} for name in ("mel2ph", "f0", "volume")}
    axes |= {"hubert": {1: "units"}, "spk_mix": {0: "frames"}, "mel_pred": {2: "frames"}}
    denoise = {"noise": mel, "time": step, "condition": randn(1, hidden, frames)}
    pred = {"noise": mel, "noise_pred": mel, "time": step, "time_prev": step // 2}
    return {
        "encoder": Graph(EncoderGraph(network), encoder, ("mel_pred",), axes),
        "denoise": Graph(
            DenoiseGraph(decoder),
            denoise,
            ("noise_pred",),
            {"noise": mel_axes, "condition": {2: "frames"}, "noise_pred": mel_axes},
        ),
        "pred": Graph(
            PredGraph(decoder),
            pred,
            ("noise_pred_o",),
            {"noise": mel_axes, "noise_pred": mel_axes, "noise_pred_o": mel_axes},
        ),
        "after": Graph(AfterGraph(decoder), {"x": mel}, ("mel_out",), {"x": mel_axes, "mel_out": {2: "frames"}}),
    }
