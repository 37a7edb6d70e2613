"""Distances between spectra, on signals whose distance is known."""

import numpy as np
import pytest
from scipy import signal

from evaluation.baseline import move_voice
from evaluation.spectral_distance import (
    level_difference,
    mel_cepstral_distance,
    stft_distance,
    warped_mel_cepstral_distance,
)

RATE = 44100


def noise(seconds: float = 2.0, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE))


def vowel(f0: float = 140.0, seconds: float = 1.5, formants: float = 1.0) -> np.ndarray:
    """A pulse train through four resonances whose frequencies are multiplied by ``formants``."""
    source = np.zeros(int(seconds * RATE))
    source[np.arange(0, len(source) - 1, RATE / f0).astype(int)] = 1
    for centre, width in ((600, 80), (1100, 90), (2500, 150), (3500, 200)):
        radius = np.exp(-np.pi * width / RATE)
        turn = 2 * np.pi * centre * formants / RATE
        source = signal.lfilter([1 - radius], [1, -2 * radius * np.cos(turn), radius**2], source)
    return (0.3 * source / np.abs(source).max()).astype(np.float32)


def test_a_song_is_no_distance_from_itself_however_loud():
    song = noise()
    assert mel_cepstral_distance(song, song, RATE) == 0.0
    assert mel_cepstral_distance(0.3 * song, song, RATE) < 1e-3


def test_a_known_change_of_the_spectrum_gives_the_distance_that_the_formula_promises():
    # A comb-free ripple: gain 3 dB * cos(pi * mel / mel_max), which is c_1 alone; its RMS over mel is 3 / sqrt(2) dB.
    import librosa

    song = noise(4.0)
    spectrum = np.fft.rfft(song)
    mels = librosa.hz_to_mel(np.fft.rfftfreq(len(song), 1 / RATE))
    ripple = 10 ** (3.0 * np.cos(np.pi * mels / mels[-1]) / 20)
    changed = np.fft.irfft(spectrum * ripple, len(song))
    assert mel_cepstral_distance(changed, song, RATE) == pytest.approx(3 / np.sqrt(2), rel=0.03)


def test_silent_frames_of_the_reference_do_not_count():
    song = noise()
    half = np.where(np.arange(len(song)) < len(song) // 2, song, 1e-5 * noise(seed=2))
    other = np.where(np.arange(len(song)) < len(song) // 2, song, 1e-5 * signal.lfilter([1], [1, -0.95], noise(seed=3)))
    assert mel_cepstral_distance(other, half, RATE) < 0.1


def test_time_warping_removes_a_pause_and_a_slower_tempo_but_not_another_sound():
    rng = np.random.default_rng(0)
    parts = [signal.lfilter([1], [1, -a], noise(0.3, seed)) for seed, a in enumerate(rng.uniform(-0.9, 0.9, 6))]
    song = np.concatenate(parts)
    slower = np.concatenate(
        [signal.lfilter([1], [1, -0.0], np.tile(part, 2)[: int(1.3 * len(part))]) for part in parts]
    )
    plain, warped = mel_cepstral_distance(slower, song, RATE), warped_mel_cepstral_distance(slower, song, RATE)
    assert warped_mel_cepstral_distance(song, song, RATE) == 0
    assert warped < 0.5 * plain
    assert warped_mel_cepstral_distance(song[::-1].copy(), song, RATE) > 1.2 * warped


def test_distances_grow_with_the_formants_scale_and_with_noise():
    song = vowel()
    scaled = [mel_cepstral_distance(vowel(formants=factor), song, RATE) for factor in (1.02, 1.06, 1.12, 1.2)]
    assert scaled == sorted(scaled) and scaled[0] > 0
    power = np.mean(song**2)
    for distance in (lambda sound: mel_cepstral_distance(sound, song, RATE), lambda sound: stft_distance(sound, song)):
        at = [distance(song + np.sqrt(power / 0.01) * 10 ** (-snr / 20) * noise(1.5)) for snr in (60, 40, 20, 0)]
        assert at == sorted(at) and at[0] > 0


def test_a_gain_gives_the_stft_distance_of_its_formula_and_its_level_in_decibels():
    song = noise()
    assert stft_distance(song, song) == 0
    for gain in (0.5, 2.0, 0.1):
        assert stft_distance(gain * song, song) == pytest.approx(abs(1 - gain) + abs(np.log(gain)), rel=1e-3)
        assert level_difference(gain * song, song) == pytest.approx(20 * np.log10(gain), abs=1e-6)


def test_noise_at_a_known_ratio_gives_the_spectral_convergence_of_that_ratio_at_least():
    song = noise(seed=1)
    for snr in (40.0, 20.0):
        distance = stft_distance(song + 10 ** (-snr / 20) * noise(seed=2), song)
        assert 0.5 * 10 ** (-snr / 20) < distance < 8 * 10 ** (-snr / 20)


def test_the_world_vocoder_moves_the_pitch():
    song = vowel(140.0)
    octave = move_voice(song, RATE, 12.0)
    assert len(octave) == len(song)
    spectrum = np.abs(np.fft.rfft(octave[8000:52100] * np.hanning(44100)))  # bins of 1 Hz
    assert spectrum[270:290].max() > 20 * spectrum[130:150].max()  # 280 Hz is there, 140 Hz is not
