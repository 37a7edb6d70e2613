"""Artefacts, on sounds into which they were put."""

import numpy as np
import pytest
from scipy import signal

from demonstration.singer import DARK, SAMPLING_RATE, Note, random_phrase, sing
from evaluation.artefacts import clipped_share, envelope_line, find_clicks, unvoiced_line

RATE = 44100


def noise(seconds: float = 2.0, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE))


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    return sing(DARK, random_phrase(np.random.default_rng(3), 4.0, 48, 60), seed=3).audio


def test_clipped_samples_are_counted():
    tone = np.sin(np.linspace(0, 400, RATE))
    assert clipped_share(0.9 * tone) == 0
    share = clipped_share(np.clip(2 * tone, -1, 1))
    assert share == pytest.approx(2 / 3, abs=0.01)  # |sin| exceeds a half for two thirds of the time


def test_a_voice_has_no_clicks_and_steps_in_it_are_found_where_they_are(voice):
    assert SAMPLING_RATE == RATE and len(find_clicks(voice, RATE)) == 0
    places = np.array([0.6, 1.3, 2.0, 2.9]) * RATE
    broken = voice.copy()
    for sign, place in zip((1, -1, 1, -1), places.astype(int), strict=True):
        broken[place:] += sign * 0.15
    found = find_clicks(broken, RATE)
    assert len(found) == 4 and np.abs(found - places).max() < 5


def test_single_samples_are_clicks_and_onsets_of_notes_and_of_noise_are_not():
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE)
    assert len(find_clicks(tone, RATE)) == 0
    clicked = tone.copy()
    clicked[[10000, 20000, 30000]] += 0.1
    assert len(find_clicks(clicked, RATE)) == 3
    onset = np.concatenate([np.zeros(RATE // 2), noise(0.5)])
    assert len(find_clicks(onset, RATE)) == 0
    assert len(find_clicks(np.zeros(RATE), RATE)) == len(find_clicks(tone[:100], RATE)) == 0


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


def test_a_low_voice_is_not_taken_for_a_line_and_a_line_beside_it_is_found():
    """F2 is 87.3 Hz, the frame rate 86.1 Hz."""
    low, high = (sing(DARK, [Note(pitch, 2.5, "la")] * 2, seed=1).audio for pitch in (41, 50))
    f0 = [np.full(len(sound) // 512, hertz) for sound, hertz in ((low, 87.3), (high, 146.8))]
    assert envelope_line(low, RATE) > 25
    assert np.isnan(envelope_line(low, RATE, f0=f0[0]))
    both, f0 = np.concatenate([low, high]), np.concatenate(f0)
    assert envelope_line(both, RATE, f0=f0) < 6
    comb = 1 + 0.2 * np.sin(2 * np.pi * RATE / 512 * np.arange(len(both)) / RATE)
    assert envelope_line(both * comb, RATE, f0=f0) > 15
    assert envelope_line(high, RATE) == envelope_line(high, RATE, f0=f0[len(low) // 512 :])


def test_a_line_in_fricatives_is_found_above_3_khz_and_one_in_vowels_is_not():
    rng = np.random.default_rng(0)
    time = np.arange(12 * RATE) / RATE
    voiced = (time % 0.4) < 0.25
    hiss = signal.lfilter([1, -0.95], [1], 0.1 * rng.standard_normal(len(time)))
    hum = 0.5 * np.sin(2 * np.pi * 150 * time)
    frames = np.arange(len(time) // 512)
    uv = voiced[frames * 512]
    comb = 1 + 0.5 * np.sin(2 * np.pi * RATE / 512 * time)
    clean = np.where(voiced, hum, hiss)
    assert unvoiced_line(clean, RATE, uv) < 6
    assert unvoiced_line(np.where(voiced, hum, hiss * comb), RATE, uv) > 12
    assert unvoiced_line(np.where(voiced, hum * comb, hiss), RATE, uv) < 6
    assert np.isnan(unvoiced_line(clean, RATE, np.ones(len(frames), bool)))


def test_a_short_sound_has_no_line():
    assert np.isnan(envelope_line(noise(0.5), RATE))
