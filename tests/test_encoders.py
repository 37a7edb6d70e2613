"""Tests of all speech encoders: frames, half precision, complete files, wrong files."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from modules.console import UserError
from modules.weights.weight_file import read_weight_file
from tests.encoder_files import ONNX_KEYS, PYTORCH_KEYS, write_encoder_file
from vencoder import ENCODERS, build_encoder
from vencoder.encoder import frame_count
from vencoder.wave_transformer import WaveTransformer

FAMILY = {
    "vec768l12": "fairseq HuBERT",
    "hubertsoft": "HuBERT-Soft",
    "whisper-ppg": "Whisper",
    "cnhubertlarge": "fairseq HuBERT",
    "dphubert": "DPHuBERT",
    "wavlmbase+": "WavLM",
}
# Tensors that are deliberately unused: for training only, or merged with another one.
UNUSED = ("mask_emb", "label_embs_concat", "final_proj", "module.masked_spec", "module.label_embedding", "decoder.")
HEAVY = ("cnhubertlarge",)  # at least 100 million weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pretrain")


@pytest.fixture(scope="module")
def files(folder):
    """Return a function from key to weight file, which writes the file at its first call."""

    def file(key):
        path = folder / ENCODERS[key].weight
        return path if path.exists() else write_encoder_file(key, folder)

    return file


@pytest.fixture(scope="module", params=list(ENCODERS))
def encoder(request, files, folder):
    if ENCODERS[request.param].weight:
        files(request.param)
    return build_encoder(request.param, folder=folder)


def noise(samples, seed=0):
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def dear(encoder):
    """Return whether a forward pass is slow even at the smallest size that the format allows."""
    return encoder.key in HEAVY or encoder.key.startswith("whisper")


def close(found, wanted, tolerance=1e-4):
    return found.shape == wanted.shape and (found - wanted).abs().max() <= tolerance * wanted.abs().max()


def test_frames_follow_the_rule_at_every_length_that_matters(encoder):
    edges = [1, 319, 320, 399, 400, 559, 560, 639, 640, 719, 720, 47919, 47920, 48000]
    edges = [400, 720, 47919] if dear(encoder) else edges
    lengths = edges + [int(n) for n in np.random.default_rng(3).integers(400, 48001, 1 if dear(encoder) else 12)]
    audio = noise(48000)
    for samples in lengths:
        features = encoder(audio[:samples])
        assert features.shape == (1, encoder.ssl_dim, encoder.frames(samples)), samples
        assert features.dtype == torch.float32 and features.isfinite().all()


def test_the_frame_count_equals_the_convolutions_for_every_length(encoder):
    lengths = np.arange(400, 48001)
    rule = np.array([encoder.frames(int(n)) for n in lengths])
    hops = encoder.padding == 40
    assert np.array_equal(rule, lengths // 320 if hops else (lengths - 400) // 320 + 1)
    network = getattr(encoder, "network", None)
    if isinstance(network, WaveTransformer):
        counts = lengths + 2 * encoder.padding
        for layer in network.feature_extractor.conv_layers:
            counts = (counts - layer.conv.kernel_size[0]) // layer.conv.stride[0] + 1
        assert np.array_equal(rule, counts)


def test_no_gradient_and_no_training_mode_is_left_on(encoder):
    """Encoders only infer: dropout and layer drop of their training would make units random."""
    assert not encoder(noise(800)).requires_grad
    if network := getattr(encoder, "network", None):
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())


# The large Whisper differs only in width; a CPU without half precision takes a minute for it.
@pytest.mark.parametrize("key", sorted(set(PYTORCH_KEYS) - {*HEAVY, "whisper-ppg-large"}))
def test_half_precision_is_near_and_falls_back_when_it_does_not_suffice(files, folder, key, monkeypatch, caplog):
    files(key)
    encoder = build_encoder(key, folder=folder, half=True)
    wanted = build_encoder(key, folder=folder)(noise(8000))
    near = encoder(noise(8000))
    assert near.dtype == torch.float32 and close(near, wanted, 0.2) and not torch.equal(near, wanted)
    compute = encoder.features

    def overflowing(audio):
        return near[0] / 0 if torch.is_autocast_enabled("cpu") else compute(audio)

    monkeypatch.setattr(encoder, "features", overflowing)
    assert torch.equal(encoder(noise(8000)), wanted)
    assert "half precision does not suffice" in caplog.text


@pytest.mark.parametrize("key", FAMILY)
def test_every_number_of_the_file_is_in_the_network(files, folder, key):
    """Except UNUSED ones; weight norm magnitudes are multiplied into their directions."""
    weights = read_weight_file(files(key), FAMILY[key])
    used = {name: len(tensor.flatten()) for name, tensor in weights.items() if not name.startswith(UNUSED)}
    magnitudes = sum(count for name, count in used.items() if name.endswith("weight_g"))
    network = build_encoder(key, folder=folder).network
    assert sum(tensor.numel() for tensor in network.parameters()) == sum(used.values()) - magnitudes


@pytest.mark.parametrize(
    ("key", "given", "looks"),
    [
        ("vec768l12", "hubertsoft", "HuBERT-Soft"),
        ("hubertsoft", "whisper-ppg", "Whisper"),
        ("whisper-ppg", "dphubert", "DPHuBERT"),
        ("dphubert", "wavlmbase+", "WavLM"),
        ("wavlmbase+", "vec768l12", "fairseq HuBERT"),
        ("cnhubertlarge", "wavlmbase+", "WavLM"),
        ("vec768l12-onnx", "vec768l12", "PyTorch checkpoint"),
        ("hubertsoft", "vec768l12-onnx", "ONNX graph"),
    ],
)
def test_the_file_of_another_encoder_is_named(files, tmp_path, key, given, looks):
    os.symlink(files(given), tmp_path / ENCODERS[key].weight)
    with pytest.raises(UserError, match=rf"{re.escape(ENCODERS[key].weight)}.*looks like (an? )?{looks}"):
        build_encoder(key, folder=tmp_path)


@pytest.mark.parametrize("key", PYTORCH_KEYS + ONNX_KEYS)
def test_a_file_that_is_no_weight_file_is_refused_and_runs_no_code(tmp_path, key):
    path = tmp_path / ENCODERS[key].weight
    marker = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    torch.save({"model": {"a": torch.zeros(1)}, "cfg": Hostile()}, path)
    with pytest.raises(UserError, match=r"refused: its pickle uses \w+.system|looks like a PyTorch checkpoint"):
        build_encoder(key, folder=tmp_path)
    assert not marker.exists()
    for content, sentence in ((b"<!DOCTYPE html>", "web page"), (b"version https://git-lfs.github.com", "Git LFS")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=sentence):
            build_encoder(key, folder=tmp_path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="truncated|cannot be read"):
        build_encoder(key, folder=tmp_path)


@pytest.mark.parametrize("key", [key for key in PYTORCH_KEYS + ONNX_KEYS if key not in HEAVY])
def test_truncated_files_are_recognised_before_use(files, tmp_path, key):
    content = Path(files(key)).read_bytes()
    (tmp_path / ENCODERS[key].weight).write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(UserError, match=r"looks truncated, its size is|cannot be read as an ONNX graph; it may be"):
        build_encoder(key, folder=tmp_path)


def test_short_sound_of_every_length_gives_one_frame():
    assert {frame_count(samples) for samples in range(1, 720)} == {frame_count(s, 40) for s in range(1, 640)} == {1}
