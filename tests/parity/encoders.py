"""Adapters for the speech encoder fixtures (H_): each through the real path, a checkpoint file that is read."""

from __future__ import annotations

import functools
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tests.checkpoint_files import write_fairseq_checkpoint
from tests.parity import Arguments
from tests.parity.recipe import recipe_values
from vencoder import ENCODERS, build_encoder
from vencoder.dphubert import DPHubert
from vencoder.encoder import SpeechEncoder
from vencoder.fairseq_hubert import FairseqHubert
from vencoder.wave_transformer import WaveTransformer
from vencoder.wavlm import convolutions
from vencoder.whisper import Whisper, log_mel

Arrays = dict[str, np.ndarray]


def contentvec(ins: Arrays, meta: dict) -> dict:
    waves = {name.removeprefix("wav"): torch.from_numpy(wave) for name, wave in ins.items()}
    with tempfile.TemporaryDirectory() as folder:
        write_fairseq_checkpoint(Path(folder) / ENCODERS["vec768l12"].weight, recipe_weights(meta))
        encoders = {key: build_encoder(key, folder=folder) for key in ("vec768l12", "vec256l9")}
    network = encoders["vec768l12"].network
    assert_sizes(network, meta["constructor"])
    assert encoders["vec256l9"].network.width == meta["constructor"]["final_dim"]
    outputs = {key + suffix: encoder(wave) for key, encoder in encoders.items() for suffix, wave in waves.items()}
    return outputs | {"layer1": after(network, waves[""], 1), "no_output_layer": after(network, waves[""], 12)}


def hubert_large(ins: Arrays, meta: dict) -> dict:
    row, layers = ENCODERS["cnhubertlarge"], meta["constructor"]["encoder_layers"]
    with tempfile.TemporaryDirectory() as folder:
        path = write_fairseq_checkpoint(Path(folder) / row.weight, recipe_weights(meta))
        encoder = FairseqHubert("cnhubertlarge", row.ssl_dim, layers, path)
    assert_sizes(encoder.network, meta["constructor"])
    meta["constructor"].without_effect("final_dim")  # no features of the projection are taken
    return {"units": encoder(torch.from_numpy(ins["wav"]))}


def hubertsoft(ins: Arrays, meta: dict) -> dict:
    encoder, wave = saved("hubertsoft", recipe_weights(meta)), torch.from_numpy(ins["wav"])
    network = encoder.network
    with torch.inference_mode():
        projected = network.project(network.convolve(wave[None]))
        positional = network.encoder.pos_conv_embed(projected)
    layer4 = after(network, wave, 4)
    return {"units": encoder(wave), "projected": projected, "positional": positional, "layer4": layer4}


def wavlm(ins: Arrays, meta: dict) -> dict:
    size = {name: meta[name] for name in ("state_dict", "recipe_seed")}
    encoder = _wavlm(json.dumps(size | {"cfg": dict(meta["constructor"])}))
    wave, network = torch.from_numpy(ins["wav"]), encoder.network
    assert_sizes(network, meta["constructor"])
    with torch.inference_mode():
        projected = network.project(network.convolve(wave[None]))
    layers = {f"layer{layer}": after(network, wave, layer) for layer in (1, 6)}
    return {"units": encoder(wave), "conv": projected, **layers}


@functools.lru_cache(maxsize=1)
def _wavlm(size: str) -> SpeechEncoder:
    """Kept, because neighbouring fixtures share theirs."""
    meta = json.loads(size)
    return saved("wavlmbase+", {"cfg": meta["cfg"], "model": recipe_weights(meta)})


def dphubert(ins: Arrays, meta: dict) -> dict:
    encoder = saved("dphubert", {"config": dict(meta["constructor"]), "state_dict": recipe_weights(meta)})
    assert isinstance(encoder, DPHubert)
    wave, network = torch.from_numpy(ins["wav"]), encoder.network
    with torch.inference_mode():
        frames = network.convolve(wave[None])
        states = network.hidden_states(frames)
        return {"units": encoder(wave), "layer0_input": network.project(frames), "layer3": states[3]}


def whisper(ins: Arrays, meta: dict) -> dict:
    weights = recipe_weights(meta, "encoder.")
    weights["encoder.positional_embedding"] = sinusoids(*meta["state_dict"]["encoder.positional_embedding"])
    encoder = saved("whisper-ppg", {"dims": dict(meta["constructor"]), "model_state_dict": weights})
    assert isinstance(encoder, Whisper)
    wave, short = (torch.from_numpy(ins[name]) for name in ("wav", "wav_short"))
    mel = log_mel(torch.nn.functional.pad(wave, (0, 480000 - len(wave)))[None], encoder.mel_basis)[0]
    return {
        "ppg": encoder(wave),
        "log_mel_first_120_frames": mel[:, :120],
        "log_mel_last_frame": mel[:, -1],
        "log_mel_raw_short": log_mel(short[None], encoder.mel_basis)[0],
    }


def assert_sizes(network: WaveTransformer, size: Arguments) -> None:
    """Assert that the network, whose sizes are read from its weights, has those of fairseq's constructor."""
    stack, encoder = network.feature_extractor.conv_layers, network.encoder
    convs, layer = [one.conv for one in stack], encoder.layers[0]
    sizes = [(conv.out_channels, conv.kernel_size[0], conv.stride[0]) for conv in convs]
    assert sizes == convolutions(size["conv_feature_layers"], "the fixture")
    norms = {"default": nn.Identity, "layer_norm": nn.LayerNorm}  # of the convolutions behind the first
    assert type(stack[1].layer_norm) is norms[size["extractor_mode"]]
    assert encoder.pre_norm is size["layer_norm_first"]
    assert size["activation_fn"] == "gelu"
    same = {
        "encoder_layers": len(encoder.layers),
        "encoder_embed_dim": encoder.layer_norm.normalized_shape[0],
        "encoder_ffn_embed_dim": layer.feed_forward.intermediate_dense.out_features,
        "encoder_attention_heads": layer.attention.heads,
        "conv_bias": convs[0].bias is not None,
    }
    assert {name: size[name] for name in same} == same
    size.without_effect("label_rate", "untie_final_proj")  # of the targets
    size.without_effect(*(name for name in size if re.search("dropout|layerdrop|grad_mult", name)))  # of training


def recipe_weights(meta: dict, beginning: str = "") -> dict[str, Tensor]:
    shapes = {name: tuple(shape) for name, shape in meta["state_dict"].items() if name.startswith(beginning)}
    return {name: torch.from_numpy(recipe_values(name, shape, meta["recipe_seed"])) for name, shape in shapes.items()}


def sinusoids(length: int, width: int) -> Tensor:
    """Whisper's fixed position embedding, which its checkpoints hold."""
    rates = torch.exp(-np.log(10000) * torch.arange(width // 2) / (width // 2 - 1))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), 1)


def saved(key: str, checkpoint: dict) -> SpeechEncoder:
    """The encoder built from a file with this content."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(checkpoint, Path(folder) / ENCODERS[key].weight)
        return build_encoder(key, folder=folder)


@torch.inference_mode()
def after(network: WaveTransformer, wave: Tensor, layers: int) -> Tensor:
    """What comes out of the network's first ``layers`` layers: (1, N, C)."""
    return network.hidden_states(network.convolve(wave[None]))[layers]


ADAPTERS = {
    "H_contentvec": contentvec,
    "H_dphubert": dphubert,
    "H_dpwavlm": dphubert,
    "H_hubert_large": hubert_large,
    "H_hubertsoft": hubertsoft,
    "H_wavlm": wavlm,
    "H_whisper": whisper,
}
