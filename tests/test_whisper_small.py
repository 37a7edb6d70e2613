"""Small Whispers: the features of an early layer, in windows of ten seconds, standardised on a fixed signal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modules.console import UserError
from tests.checkpoint_files import whisper_checkpoint
from tests.test_whisper import WIDTH, encode, noise
from vencoder.encoder import HOP_LENGTH
from vencoder.speech_like import speech_like
from vencoder.whisper import EnglishWhisper, SmallWhisper, log_mel

LAYERS, LAST, WINDOW = 3, 2, 500
LEVELS = [0.08169, 0.1074, 0.08864, 0.06787, 0.08083, 0.08821, 0.11654, 0.09307, 0.05365, 0.07926]


@pytest.fixture(scope="module")
def checkpoint():
    return whisper_checkpoint(6, WIDTH, LAYERS)


@pytest.fixture(scope="module")
def encoder(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("whisper") / "tiny.pt"
    torch.save(checkpoint, path)
    return SmallWhisper("whisper-ppg-tiny", WIDTH, LAST, path)


def test_features_are_the_layers_output_standardised_by_the_fixed_signal(checkpoint, encoder):
    weights = dict(checkpoint["model_state_dict"])
    weights["encoder.positional_embedding"] = weights["encoder.positional_embedding"][:WINDOW]

    def layer(audio):
        padded = F.pad(audio, (0, WINDOW * HOP_LENGTH - len(audio)))
        return encode(weights, log_mel(padded[None], encoder.mel_basis)[0], LAST)

    fixed, audio = layer(torch.from_numpy(speech_like(10))), noise(33000)
    wanted = (layer(audio)[: 33000 // 320] - fixed.mean(0)) / fixed.std(0)
    assert (encoder(audio)[0].T - wanted).abs().max() <= 1e-3 * wanted.abs().max()


def test_on_the_fixed_signal_each_feature_has_mean_0_and_deviation_1(encoder):
    deviation, mean = torch.std_mean(encoder(torch.from_numpy(speech_like(10)))[0], dim=1)
    torch.testing.assert_close(mean, torch.zeros(WIDTH), rtol=0, atol=1e-3)
    torch.testing.assert_close(deviation, torch.ones(WIDTH), rtol=0, atol=1e-3)


def test_long_audio_is_encoded_to_its_end_in_windows_of_ten_seconds(encoder):
    audio = noise(24 * 16000)
    found = encoder(audio)[0]
    assert found.shape == (WIDTH, 24 * 50)
    alone = encoder(audio[-10 * 16000 :])[0]
    torch.testing.assert_close(found[:, -300:], alone[:, -300:], rtol=0, atol=1e-3)


def test_the_fixed_signal_is_the_one_that_models_were_trained_with():
    """Levels of each second, as when the encoders were introduced; another signal would change all features."""
    audio = speech_like(10)
    assert audio.dtype == np.float32 and len(audio) == 160000
    levels = np.sqrt(np.square(audio.astype(np.float64)).reshape(10, -1).mean(1))
    np.testing.assert_allclose(levels, LEVELS, rtol=1e-3)


def test_a_model_for_english_and_a_multilingual_one_are_told_apart(tmp_path, checkpoint):
    for english, kind, key in (
        (True, SmallWhisper, "whisper-ppg-tiny"),
        (False, EnglishWhisper, "whisper-ppg-tiny.en"),
    ):
        dims = checkpoint["dims"] | {"n_vocab": 51864 if english else 51865}
        torch.save(checkpoint | {"dims": dims}, tmp_path / "a.pt")
        suffix = r"\.en" if english else ""
        with pytest.raises(UserError, match=rf"'{key}': it looks like Whisper of width {WIDTH}{suffix}$"):
            kind(key, WIDTH, LAST, tmp_path / "a.pt")


def test_a_file_with_too_few_layers_is_refused(tmp_path, checkpoint):
    torch.save(checkpoint, tmp_path / "a.pt")
    with pytest.raises(UserError, match="not a Whisper of a known shape: 3 layers"):
        SmallWhisper("whisper-ppg-tiny", WIDTH, 4, tmp_path / "a.pt")
