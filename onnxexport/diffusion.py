"""The diffusion model as four graphs, between which the host runs the sampler.

The host runs ``encoder`` once, ``denoise`` and ``pred`` in each step, and ``after`` at the end. Between ``denoise`` and
``pred`` it combines the predicted noise of this and earlier steps, as in PLMS (https://arxiv.org/abs/2202.09778).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion.samplers import follow_noise
from diffusion.schedule import Level
from diffusion.unit2mel import MelDiffusion, Unit2Mel, load_unit2mel
from modules.config import DiffusionConfig, load_diffusion_config
from modules.console import UserError, get_logger, option
from onnxexport.graph import SUFFIX, Graph, refuse_target, write_graphs
from onnxexport.metadata import diffusion_metadata, encoder_flaw, json_text
from onnxexport.units import expand_units
from vits.generator_file import refuse_to_overwrite

EXAMPLE_FRAMES = 50
PARTS = ("encoder", "denoise", "pred", "after")

log = get_logger("onnx")


def export_diffusion(
    model: Path,
    config_path: Path,
    prefix: Path,
    metadata: Path,
    names: Sequence[str] | None = None,
    precision: str = "fp32",
) -> list[str]:
    """Write the graphs of a checkpoint to ``<prefix>_<part>.onnx``, and their description for hosts to ``metadata``.

    ``names`` are the synthesizer's speakers, whose places the host uses for both. Writes all files or none. Returns why
    MoeVoiceStudio cannot run the model, as sentences. Raises UserError if a file is missing, damaged or does not match
    the config, and as ``refuse_target`` and ``write_graphs``.
    """
    config = load_diffusion_config(config_path)
    network = load_unit2mel(model, config, None, "cpu")
    config.spk = ordered_speakers(config, config_path, names)
    values = diffusion_metadata(prefix.name, config, network.decoder.denoise_fn.n_mels, config_path)
    rows = list(config.spk.values()) if network.spk_embed is not None else [0]
    graphs = diffusion_graphs(network, rows)
    files = {path: graphs[part] for part, path in graph_paths(prefix).items()}
    for path in files:
        refuse_target(path, model, config_path)
    refuse_to_overwrite(metadata, model, config_path)
    write_graphs(files, precision, {metadata: json_text(values)})
    flaw = encoder_flaw(config.data.encoder, config.data.encoder_out_channels, config_path)
    return [flaw] if flaw else []


def graph_paths(prefix: Path) -> dict[str, Path]:
    """Return the paths of the graphs by part."""
    return {part: prefix.with_name(f"{prefix.name}_{part}{SUFFIX}") for part in PARTS}


def ordered_speakers(config: DiffusionConfig, config_path: Path, names: Sequence[str] | None) -> dict[str, int]:
    """Return speaker name -> row in the order of ``names``, or else of the rows; a YAML's order is alphabetical.

    Speakers without names are named by their rows. Logs a warning if ``names`` is None, or if the speakers are not
    those of ``names``. Raises UserError if a row is beyond the network's.
    """
    count = config.model.n_spk
    speakers = config.spk or {str(row): row for row in range(count)}
    if beyond := [name for name, row in speakers.items() if count > 1 and not 0 <= row < count]:
        raise UserError(f"{config_path}: spk gives {', '.join(beyond)} numbers outside 0 to {count - 1}")
    if names is None and count > 1 and len(speakers) > 1:
        log.warning(
            "%s: its speakers are written in the order of their numbers, because no config.json of the synthesizer was "
            "found; shallow diffusion needs the synthesizer's order, so name its folder with %s",
            config_path,
            option("model_name"),
        )
    names = names or sorted(speakers, key=speakers.__getitem__)
    if count > 1 and set(names) != set(speakers):
        own, given = ", ".join(speakers), ", ".join(names)
        why = "MoeVoiceStudio takes the synthesizer's places, so shallow diffusion would confuse them"
        log.warning("%s: its speakers %s are not the synthesizer's %s; %s", config_path, own, given, why)
    return {name: speakers[name] for name in [*names, *speakers] if name in speakers}


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
            spk_mix: weights of all speakers in each frame (T, S), or the speaker's place (1,) int64 if there is one.
        """
        units = expand_units(hubert, mel2ph)
        speaker = spk_mix if spk_mix.is_floating_point() else spk_mix[:, None]
        return self.network.condition(units, f0[:, :, None], volume[:, :, None], speaker)


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


def diffusion_graphs(network: Unit2Mel, rows: Sequence[int]) -> dict[str, Graph]:
    """Return the four graphs by the last part of their file names.

    With two speakers or more the first graph takes weights in the order of ``rows`` of the speaker embedding. A single
    speaker has place 0 in the host, and that row. The network's speaker embedding is replaced.
    """
    decoder, frames = network.decoder, EXAMPLE_FRAMES
    width, hidden = network.unit_embed.in_features, network.unit_embed.out_features
    if network.spk_embed is not None:
        network.spk_embed = nn.Embedding.from_pretrained(network.spk_embed.weight[torch.tensor(rows)])
    speaker, speaker_axes = torch.zeros(1, dtype=torch.long), {}
    if len(rows) > 1:
        speaker, speaker_axes = torch.full((frames, len(rows)), 1 / len(rows)), {"spk_mix": {0: "frames"}}
    randn = functools.partial(torch.randn, generator=torch.Generator().manual_seed(0))
    mel, step = randn(1, 1, decoder.denoise_fn.n_mels, frames), torch.tensor([network.timesteps // 2])
    curve, mel_axes = torch.full((1, frames), 220.0), {3: "frames"}
    encoder = {
        "hubert": randn(1, frames, width),
        "mel2ph": torch.arange(1, frames + 1)[None],
        "f0": curve,
        "volume": curve / 1000,
        "spk_mix": speaker,
    }
    axes = {name: {1: "frames"} for name in ("mel2ph", "f0", "volume")}
    axes |= {"hubert": {1: "units"}, "mel_pred": {2: "frames"}, **speaker_axes}
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
