"""Spectrograms against librosa, a plain Fourier sum, and measured values."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from modules.audio.spectrogram import (
    VocoderMel,
    linear_spectrogram,
    mel_filters,
    mel_from_linear,
    mel_spectrogram,
    scale_spectrogram,
)

STFT = (2048, 512, 2048)
MEL = {"sampling_rate": 44100, "n_fft": 2048, "n_mels": 80, "fmin": 0.0, "fmax": 22050.0}


def tone() -> torch.Tensor:
    time = torch.arange(44100) / 44100  # float32, as in the measured values
    return (0.5 * torch.sin(2 * np.pi * 440 * time))[None]


def test_measured_values_of_a_tone():
    spec = linear_spectrogram(tone(), *STFT)
    assert spec.shape == (1, 1025, 86) and int(spec[0, :, 40].argmax()) == 20
    np.testing.assert_allclose(spec[0, 20:23, 40], [226.4339, 207.2253, 35.0077], rtol=1e-5)
    mel = mel_spectrogram(tone(), 44100, 2048, 80, 512, 2048, 0.0, 22050.0)
    assert int(mel[0, :, 40].argmax()) == 8
    np.testing.assert_allclose(mel[0, :6, 40], [-7.3353, -6.9867, -6.4766, -5.8978, -5.2095, -4.2637], atol=2e-3)


def test_a_frame_is_the_fourier_transform_of_its_windowed_samples():
    audio = torch.from_numpy(np.random.default_rng(0).normal(0, 0.2, (1, 5000)))
    spec = linear_spectrogram(audio.float(), 256, 64, 256)
    padded = np.pad(audio[0].numpy(), 96, mode="reflect")
    frame = padded[10 * 64 : 10 * 64 + 256] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256))
    np.testing.assert_allclose(spec[0, :, 10], np.sqrt(np.abs(np.fft.rfft(frame)) ** 2 + 1e-6), rtol=1e-4)


@pytest.mark.parametrize(("samples", "frames"), [(1000, 1), (1024, 2), (5000, 9), (44101, 86), (102400, 200)])
def test_there_is_a_frame_for_each_whole_hop(samples, frames):
    assert linear_spectrogram(torch.zeros(1, samples), *STFT).shape[-1] == frames


@pytest.mark.parametrize("gain", [0.1, 1, 3.3, 10])
def test_a_scaled_spectrogram_is_that_of_the_scaled_sound(gain):
    audio = torch.randn(1, 44100, generator=torch.Generator().manual_seed(2)) * torch.logspace(-7, -1, 44100)
    scaled = scale_spectrogram(linear_spectrogram(audio, *STFT), gain)
    torch.testing.assert_close(scaled, linear_spectrogram(audio * gain, *STFT), rtol=1e-4, atol=1e-6)


def test_audio_too_short_for_reflect_padding_is_refused():
    with pytest.raises(ValueError, match="512 samples are too few"):
        linear_spectrogram(torch.zeros(1, 512), *STFT)


@pytest.mark.parametrize(
    ("rate", "n_fft", "n_mels", "fmin", "fmax"),
    [
        (44100, 2048, 80, 0, 22050), (44100, 2048, 128, 40, 16000), (16000, 400, 40, 0, None),
        (16000, 1024, 128, 30, 8000), (32000, 1024, 99, 0, 8000),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mel_scale", ["slaney", "htk"])
def test_mel_filters_are_librosas(rate, n_fft, n_mels, fmin, fmax, mel_scale):
    expected = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax, htk=mel_scale == "htk")
    found = mel_filters(rate, n_fft, n_mels, fmin, fmax, torch.device("cpu"), mel_scale)
    np.testing.assert_allclose(found, expected, atol=2e-5 * expected.max(), rtol=0)


def test_filters_of_different_rates_with_one_fmax_differ():
    spec = torch.rand(1, 1025, 3) + 1
    first = mel_from_linear(spec, **MEL)
    other = mel_from_linear(spec, **{**MEL, "sampling_rate": 48000})
    assert not torch.allclose(first, other)
    torch.testing.assert_close(mel_from_linear(spec, **MEL), first)


def test_the_spectrogram_ignores_autocast():
    audio = torch.randn(1, 4096) * 1e-3
    expected = mel_spectrogram(audio, 44100, 2048, 80, 512, 2048, 0.0, 22050.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(mel_spectrogram(audio, 44100, 2048, 80, 512, 2048, 0.0, 22050.0), expected)


def test_the_gradient_at_silence_is_finite():
    audio = torch.zeros(1, 4096, requires_grad=True)
    mel_spectrogram(audio, 44100, 2048, 80, 512, 2048, 0.0, 22050.0).sum().backward()
    assert torch.isfinite(audio.grad).all()


@pytest.mark.parametrize(("key", "peak", "height"), [(0, 13, 2.2745), (5, 18, 2.2018), (-5, 9, 2.3632)])
def test_vocoder_mel_moves_a_tone_by_the_key_shift(key, peak, height):
    mel = VocoderMel()(tone(), key)
    assert mel.shape == (1, 128, 86) and int(mel[0, :, 40].argmax()) == peak
    assert float(mel[0, :, 40].max()) == pytest.approx(height, abs=1e-3)
    assert float(mel.min()) >= np.log(1e-5)


def test_vocoder_mel_takes_sound_shorter_than_its_window():
    assert VocoderMel()(torch.rand(1, 600) - 0.5).shape == (1, 128, 1)
    assert torch.isfinite(VocoderMel()(torch.zeros(1, 300), 3)).all()
