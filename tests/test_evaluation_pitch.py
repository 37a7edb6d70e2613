"""Agreement in F0 and voicing, on contours and tones whose figures are known."""

import numpy as np
import pytest

from demonstration.singer import DARK, SAMPLING_RATE, Note, sing
from evaluation.pitch import Contour, compare, key_difference, periodicity, track
from modules.f0 import build_f0_predictor


def contour(f0, voiced=None, periodicity=None):
    f0 = np.asarray(f0, float)
    return Contour(f0, np.ones(len(f0), bool) if voiced is None else np.asarray(voiced, bool), periodicity)


GLIDE = 200 * 2 ** (np.linspace(0, 1, 200))


def test_a_contour_agrees_with_itself():
    figures = compare(contour(GLIDE), contour(GLIDE))
    assert figures["f0_correlation"] == pytest.approx(1) and figures["vuv_f1"] == 1
    assert figures["f0_cents"] == figures["f0_median_cents"] == 0


def test_a_shift_in_cents_is_the_rmse_and_leaves_the_correlation():
    figures = compare(contour(GLIDE * 2 ** (30 / 1200)), contour(GLIDE))
    assert figures["f0_cents"] == pytest.approx(30) and figures["f0_median_cents"] == pytest.approx(30)
    assert figures["f0_correlation"] == pytest.approx(1)
    assert compare(contour(GLIDE).shifted(7), contour(GLIDE).shifted(7))["f0_cents"] == pytest.approx(0)
    assert key_difference(contour(GLIDE).shifted(-5), contour(GLIDE)) == pytest.approx(-5)


def test_a_tenth_of_octave_errors_moves_the_rmse_and_not_the_median():
    wrong = GLIDE.copy()
    wrong[:20] *= 2
    figures = compare(contour(wrong), contour(GLIDE))
    assert figures["f0_cents"] == pytest.approx(1200 * np.sqrt(0.1)) and figures["f0_median_cents"] == 0


def test_voicing_f1_is_that_of_the_counts():
    made, real = np.zeros(100, bool), np.zeros(100, bool)
    made[:60], real[20:80] = True, True  # 40 in both, 20 in one only, on each side
    figures = compare(contour(GLIDE[:100], made), contour(GLIDE[:100], real))
    assert figures["vuv_f1"] == pytest.approx(2 * 40 / (60 + 60))


def test_figures_without_voiced_frames_are_left_out():
    silent = contour(GLIDE, np.zeros(200, bool))
    assert compare(silent, silent) == {}
    assert compare(silent, contour(GLIDE)) == {"vuv_f1": 0}
    assert key_difference(silent, contour(GLIDE)) is None
    assert "f0_correlation" not in compare(contour(np.full(200, 150.0)), contour(np.full(200, 150.0)))


def test_periodicity_is_that_of_harmonics_in_noise():
    """The autocorrelation of harmonics in white noise is the harmonics' share of the power (Boersma 1993)."""
    time = np.arange(44100) / 44100
    tone = sum(np.sin(2 * np.pi * 200 * number * time) for number in range(1, 30)) / 10
    rng = np.random.default_rng(0)
    for share in (0.99, 0.8, 0.5):
        noise = rng.standard_normal(len(tone)) * np.sqrt(np.mean(tone**2) * (1 - share) / share)
        measured = periodicity(tone + noise, 44100, 512)
        assert len(measured) == 44100 // 512
        assert np.median(measured[5:-5]) == pytest.approx(share, abs=0.05)
    assert np.median(periodicity(rng.standard_normal(44100), 44100, 512)[5:-5]) < 0.3
    assert not periodicity(np.ones(100), 44100, 512).any()


def test_a_synthetic_singer_is_tracked_and_a_song_sung_three_semitones_higher_is_found():
    notes = [Note(52, 0.7, "la"), Note(55, 0.7, "mo"), Note(50, 0.6, "sa")]
    higher = [Note(note.pitch + 3, note.duration, note.syllable) for note in notes]
    predictor = build_f0_predictor("pm", SAMPLING_RATE, 512)
    low, high = (track(sing(DARK, song, seed=1).audio, predictor) for song in (notes, higher))
    assert key_difference(high, low) == pytest.approx(3, abs=0.1)
    figures = compare(high, low.shifted(3))
    assert figures["f0_correlation"] > 0.98 and figures["f0_median_cents"] < 15 and figures["vuv_f1"] > 0.95
    assert 0.8 < np.median(low.periodicity[low.voiced]) <= 1
