"""The encoder without weights: cepstra as defined, HuBERT's frames, finite values."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import scipy.fft
import torch

from vencoder import build_encoder
from vencoder.encoder import frame_count


@pytest.fixture(scope="module")
def encoder():
    return build_encoder("mfcc")


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def test_features_are_the_cepstra_and_differences_computed_frame_by_frame(encoder):
    audio = noise(6000)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    bands = librosa.filters.mel(sr=16000, n_fft=512, n_mels=40)
    cepstra = []
    for start in range(0, len(audio) - 399, 320):
        power = np.abs(np.fft.rfft(audio[start : start + 400].numpy() * window, 512)) ** 2
        cepstra.append(scipy.fft.dct(np.log(bands @ power), norm="ortho")[1:25])
    cepstra = np.array(cepstra).T
    held = np.pad(cepstra, ((0, 0), (1, 1)), mode="edge")
    first, second = (held[:, 2:] - held[:, :-2]) / 2, held[:, 2:] - 2 * cepstra + held[:, :-2]
    wanted = np.concatenate([cepstra, first, second])
    wanted = (wanted - wanted.mean(1, keepdims=True)) / wanted.std(1, keepdims=True)
    np.testing.assert_allclose(encoder(audio)[0].numpy(), wanted, atol=1e-3)


def test_every_feature_has_zero_mean_and_unit_variance_over_the_sound(encoder):
    features = encoder(noise(32000))
    assert features.shape == (1, 72, 99) and features.dtype == torch.float32
    assert features.mean(2).abs().max() < 1e-4
    assert (features.var(2, correction=0) - 1).abs().max() < 1e-3


def test_frame_counts_equal_those_of_hubert_for_every_length(encoder):
    for samples in [1, 399, *range(400, 2100), 16000, 47999, 48000]:
        assert encoder(noise(samples)).shape[2] == frame_count(samples) == max((samples - 400) // 320 + 1, 1)


@pytest.mark.parametrize("value", [0.0, 0.5, -1.0])
@pytest.mark.parametrize("samples", [100, 400, 16000])
def test_constant_sound_gives_finite_features_near_zero(encoder, value, samples):
    features = encoder(torch.full((samples,), value))
    assert features.isfinite().all() and features.abs().max() < 0.1


def test_loudness_hardly_matters_because_c0_is_left_out(encoder):
    audio = noise(16000)
    assert (encoder(audio) - encoder(0.25 * audio)).abs().max() < 0.01
