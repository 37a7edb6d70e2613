"""Lag, envelope and length, on songs that were delayed and scaled by known amounts."""

import numpy as np
import pytest

from evaluation.timing import envelope_correlation, lag

RATE = 44100


def song(seconds=3.0, seed=0):
    """Noise in syllables of random levels."""
    rng = np.random.default_rng(seed)
    levels = np.repeat(rng.uniform(0.05, 1, int(seconds / 0.15) + 1), int(0.15 * RATE))[: int(seconds * RATE)]
    return (0.1 * levels * rng.standard_normal(len(levels))).astype(np.float32)


@pytest.mark.parametrize("samples", [0, 30, 441, 4410, -2205, 20000])
def test_a_delay_in_samples_is_found(samples):
    audio = song()
    late = np.roll(np.pad(audio, 22050), samples)
    assert lag(late, np.pad(audio, 22050), RATE) * RATE == pytest.approx(samples, abs=10)


def test_the_delay_is_found_though_the_voice_is_another():
    envelope = np.convolve(np.abs(song()), np.ones(2000) / 2000, "same")
    other = np.random.default_rng(5).standard_normal(len(envelope)) * envelope
    assert lag(np.roll(other, 882), song(), RATE) == pytest.approx(0.02, abs=0.004)


def test_a_gain_leaves_the_envelope_and_another_song_has_another_one():
    audio = song()
    assert envelope_correlation(0.2 * audio, audio) == pytest.approx(1, abs=1e-6)
    assert abs(envelope_correlation(song(30, seed=1), song(30, seed=2))) < 0.3
    assert envelope_correlation(np.zeros(44100), audio) == 0
    levels = [envelope_correlation(audio + level * song(seed=9), audio) for level in (0.1, 0.5, 2.0)]
    assert levels == sorted(levels, reverse=True)
