import numpy as np
import pytest
from scipy import signal

from demonstration.measures import envelope_line, f0_correlation, mel_cepstral_distance, voicing_error

RATE = 44100


def noise(seconds: float = 2.0, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE))


def test_the_correlation_is_one_for_a_transposed_contour_and_sees_only_frames_that_both_call_voiced():
    true = np.array([100.0, 120.0, 150.0, 0.0, 140.0, 130.0])
    measured = np.array([200.0, 240.0, 300.0, 777.0, 5.0, 260.0])
    voiced = np.array([1, 1, 1, 1, 0, 1])
    assert f0_correlation(measured, voiced, true, true > 0) == pytest.approx(1.0)


def test_the_correlation_is_about_zero_for_an_unrelated_contour_and_zero_without_voiced_frames():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(100, 200, (2, 4000))
    assert abs(f0_correlation(a, a > 0, b, b > 0)) < 0.06
    assert f0_correlation(a, a < 0, b, b > 0) == 0.0


def test_the_voicing_error_counts_both_kinds_of_mistake():
    assert voicing_error(np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0])) == 0.5


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


def test_a_modulation_at_the_frame_rate_is_found_with_its_depth():
    rate = RATE / 512
    carrier = noise(20.0)
    time = np.arange(len(carrier)) / RATE
    plain = envelope_line(carrier, RATE)
    weak, strong = (envelope_line(carrier * (1 + m * np.sin(2 * np.pi * rate * time)), RATE) for m in (0.05, 0.2))
    elsewhere = envelope_line(carrier * (1 + 0.2 * np.sin(2 * np.pi * 60.0 * time)), RATE)
    assert plain < 6 and elsewhere < 6
    assert strong > 15
    assert weak < strong
    assert envelope_line(carrier * (1 + 0.2 * np.sin(2 * np.pi * 60.0 * time)), RATE, 60.0) > 15
