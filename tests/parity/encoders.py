"""Adapters for the speech encoder fixtures (H_): each through the real path, a checkpoint file that is read."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.checkpoint_files import write_fairseq_checkpoint
from tests.parity import Arguments
from tests.parity.recipe import recipe_values
from vencoder import ENCODERS, build_encoder
from vencoder.dphubert import DPHubert
from vencoder.encoder import SpeechEncoder
from vencoder.fairseq_hubert import FairseqHubert
from vencoder.hubert_network import HubertNetwork
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
        positional = network.hubert.encoder.pos_conv_embed(projected)
    layer4 = after(network, wave, 4)
    return {"units": encoder(wave), "projected": projected, "positional": positional, "layer4": layer4}


def wavlm(ins: Arrays, meta: dict) -> dict:
    encoder, wave = saved("wavlmbase+", {"cfg": dict(meta["constructor"]), "model": recipe_weights(meta)}), ins["wav"]
    wave, network = torch.from_numpy(wave), encoder.network
    assert_sizes(network, meta["constructor"])
    with torch.inference_mode():
        projected = network.project(network.convolve(wave[None]))
    layers = {f"layer{layer}": after(network, wave, layer) for layer in (1, 6)}
    return {"units": encoder(wave), "conv": projected, **layers}


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


def assert_sizes(network: HubertNetwork, size: Arguments) -> None:
    """Assert that the network, whose sizes are read from its weights, has those of fairseq's constructor."""
    config = network.hubert.config
    layers = convolutions(size["conv_feature_layers"], "the fixture")
    assert tuple(zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True)) == tuple(layers)
    assert config.feat_extract_norm == {"default": "group", "layer_norm": "layer"}[size["extractor_mode"]]
    assert config.do_stable_layer_norm is size["layer_norm_first"]
    same = {
        "encoder_layers": config.num_hidden_layers,
        "encoder_embed_dim": config.hidden_size,
        "encoder_ffn_embed_dim": config.intermediate_size,
        "encoder_attention_heads": config.num_attention_heads,
        "activation_fn": config.hidden_act,
        "conv_bias": config.conv_bias,
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
    encoder = network.hubert.encoder
    every, encoder.layers = encoder.layers, encoder.layers[:layers]
    try:
        return encoder(network.project(network.convolve(wave[None]))).last_hidden_state
    finally:
        encoder.layers = every


ADAPTERS = {
    "H_contentvec": contentvec,
    "H_dphubert": dphubert,
    "H_dpwavlm": dphubert,
    "H_hubert_large": hubert_large,
    "H_hubertsoft": hubertsoft,
    "H_wavlm": wavlm,
    "H_whisper": whisper,
}
