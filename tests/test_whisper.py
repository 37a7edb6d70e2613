"""Whisper's encoder equals the implementation here, and encodes all of a long song."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modules.console import UserError
from tests.bounded import bounded
from tests.checkpoint_files import whisper_checkpoint
from vencoder.whisper import OVERLAP, WINDOW, Whisper, blend, log_mel, window_starts

WIDTH, LAYERS = 128, 2


@pytest.fixture(scope="module")
def checkpoint():
    return whisper_checkpoint(6, WIDTH, LAYERS)


@pytest.fixture(scope="module")
def encoder(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("whisper") / "medium.pt"
    torch.save(checkpoint, path)
    return Whisper("small", WIDTH, None, path)


def noise(samples, seed=0):
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def encode(weights, mel, layers=LAYERS):
    """(80, 2 * N) -> (N, WIDTH), as A. Radford et al. describe it."""
    frames = mel.shape[1] // 2
    w = {name.removeprefix("encoder."): tensor for name, tensor in weights.items()}

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def norm(x, name):
        return F.layer_norm(x, (WIDTH,), w[f"{name}.weight"], w[f"{name}.bias"])

    x = F.gelu(F.conv1d(mel[None], w["conv1.weight"], w["conv1.bias"], padding=1))
    x = F.gelu(F.conv1d(x, w["conv2.weight"], w["conv2.bias"], stride=2, padding=1))[0].T + w["positional_embedding"]
    for i in range(layers):
        y = norm(x, f"blocks.{i}.attn_ln")
        q, k, v = (
            linear(y, f"blocks.{i}.attn.{name}").view(frames, WIDTH // 64, 64).transpose(0, 1)
            for name in ("query", "key", "value")
        )
        heads = (q * 64**-0.25 @ (k * 64**-0.25).transpose(1, 2)).softmax(-1) @ v
        x = x + linear(heads.transpose(0, 1).reshape(frames, WIDTH), f"blocks.{i}.attn.out")
        x = x + linear(F.gelu(linear(norm(x, f"blocks.{i}.mlp_ln"), f"blocks.{i}.mlp.0")), f"blocks.{i}.mlp.2")
    return norm(x, "ln_post")


def test_features_equal_an_independent_implementation(checkpoint, encoder):
    audio = noise(33000)
    mel = log_mel(F.pad(audio, (0, 480000 - len(audio)))[None], encoder.mel_basis)[0]
    wanted = encode(checkpoint["model_state_dict"], mel)[: 33000 // 320]
    found = encoder(audio)[0].T
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_the_spectrogram_is_the_published_one(encoder):
    from tests.transformers_library import transformers

    audio = noise(480000) * torch.linspace(0, 1, 480000) ** 4
    wanted = transformers.WhisperFeatureExtractor()(audio.numpy(), sampling_rate=16000)["input_features"][0]
    np.testing.assert_allclose(log_mel(audio[None], encoder.mel_basis)[0].numpy(), wanted, atol=2e-3)


def test_windows_cover_every_frame_and_overlap_by_five_seconds():
    for frames in [1, 1499, 1500, 1501, 2750, 2751, *range(3000, 20000, 37)]:
        starts = window_starts(frames)
        assert starts[0] == 0 and (len(starts) == 1) == (frames <= WINDOW)
        if len(starts) > 1:
            assert starts[-1] + WINDOW == frames
            assert max(np.diff(starts)) <= WINDOW - OVERLAP and min(np.diff(starts)) > 0


def test_blending_windows_of_one_signal_gives_the_signal():
    signal = torch.randn(4321, 3, generator=torch.Generator().manual_seed(0))
    starts = window_starts(len(signal))
    blended = blend([signal[start : start + WINDOW] for start in starts], starts, len(signal))
    torch.testing.assert_close(blended, signal, rtol=0, atol=1e-5)


def test_long_audio_is_encoded_to_its_end_without_jumps(encoder):
    audio = noise(70 * 16000)
    features = encoder(audio)[0].T
    assert features.shape == (70 * 50, WIDTH)
    starts = window_starts(len(features))
    for start in starts:  # the middle of a window, which no other one covers, is only that window's
        alone = encoder(audio[start * 320 : (start + WINDOW) * 320])[0].T
        others = [s for s in starts if s != start]
        only = [i for i in range(WINDOW) if not any(s <= start + i < s + WINDOW for s in others)]
        assert len(only) > 100
        torch.testing.assert_close(features[[start + i for i in only]], alone[only], rtol=0, atol=1e-4)
    changed = audio.clone()
    changed[65 * 16000 : 66 * 16000] = 0
    assert (encoder(changed)[0].T - features)[65 * 50 : 66 * 50].abs().max() > 1e-3
    steps = (features[1:] - features[:-1]).abs().mean(1)
    assert steps.max() < 3 * steps.median()


@pytest.mark.parametrize(
    ("sizes", "vocabulary", "looks"),
    [
        ({"width": 128, "bands": 128}, 51866, "of width 128-v3"),
        ({"width": 128}, 51864, "of width 128.en"),
        ({"width": 384}, 51865, "tiny"),
    ],
)
def test_another_whisper_is_named(tmp_path, sizes, vocabulary, looks):
    checkpoint = whisper_checkpoint(**sizes)
    checkpoint["dims"]["n_vocab"] = vocabulary
    torch.save(checkpoint, tmp_path / "medium.pt")
    with pytest.raises(UserError, match=rf"medium.pt is not the file of .*whisper-ppg': it looks like Whisper {looks}"):
        Whisper("whisper-ppg", WIDTH, None, tmp_path / "medium.pt")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("encoder.blocks.0.mlp.0.weight", None, "not a Whisper of a known shape|lacks"),
        ("encoder.blocks.1.attn.key.weight", None, "layers.1.self_attn.k_proj.weight is missing"),
        ("encoder.blocks.0.attn.key.bias", torch.zeros(WIDTH), "does not have: encoder.blocks.0.attn.key.bias"),
        ("encoder.positional_embedding", torch.zeros(750, WIDTH), r"is \[750, 128\] and should be \[1500, 128\]"),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_the_tensor(tmp_path, checkpoint, name, value, sentence):
    weights = dict(checkpoint["model_state_dict"])
    weights.pop(name, None)
    torch.save(checkpoint | {"model_state_dict": weights | ({} if value is None else {name: value})}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=rf"a\.pt .*({sentence})"):
        Whisper("small", WIDTH, None, tmp_path / "a.pt")


@pytest.mark.parametrize(
    "sizes", [{"n_audio_layer": 10**9}, {"n_audio_layer": -1}, {"n_audio_state": 1 << 62}, {"n_audio_head": 0}]
)
def test_endless_sizes_are_a_user_error(tmp_path, checkpoint, sizes):
    torch.save({**checkpoint, "dims": checkpoint["dims"] | sizes}, tmp_path / "a.pt")
    width = sizes.get("n_audio_state", WIDTH)
    assert "a.pt" in bounded(lambda: Whisper("small", width, None, tmp_path / "a.pt"), mib=200)
