from dataclasses import replace

import numpy as np
import pytest

from demonstration.singer import (
    BRIGHT,
    DARK,
    HOP_LENGTH,
    ONSETS,
    PHONES,
    SAMPLING_RATE,
    Note,
    Voice,
    random_phrase,
    sing,
    spell,
)


def phrase(seconds: float = 4.0, low: float = 50, high: float = 67, seed: int = 5) -> list[Note]:
    return random_phrase(np.random.default_rng(seed), seconds, low, high)


def inside(mask: np.ndarray, frames: int = 4) -> np.ndarray:
    """The frames that have only frames of their own kind within ``frames`` on both sides."""
    return np.convolve(mask, np.ones(2 * frames + 1), mode="same") > 2 * frames + 0.5


@pytest.mark.parametrize("voice", [DARK, BRIGHT])
def test_the_known_f0_is_what_world_measures(voice):
    pyworld = pytest.importorskip("pyworld")
    song = sing(replace(voice, breath=0.0), phrase(), seed=1)
    audio = song.audio.astype(np.float64)
    period = 1000 * HOP_LENGTH / SAMPLING_RATE
    rough, times = pyworld.harvest(audio, SAMPLING_RATE, 50, 1100, frame_period=period)
    f0 = pyworld.stonemask(audio, rough, times, SAMPLING_RATE)[: len(song.f0)]
    sure = inside(song.voiced) & (f0 > 0)
    cents = 1200 * np.log2(f0[sure] / song.f0[sure])
    assert sure.sum() > 0.9 * inside(song.voiced).sum()
    assert abs(np.median(cents)) < 1.0
    assert np.percentile(np.abs(cents), 90) < 15.0


@pytest.mark.parametrize(("pitch", "f0"), [(40, 82.41), (69, 440.0), (82, 932.33)])
def test_a_held_note_has_its_harmonics_and_nothing_between_them(pitch, f0):
    note = Note(pitch, 1.2, "a", vibrato=0.0)
    song = sing(Voice(breath=0.0), [note], seed=2)
    part = song.audio[13230:44100] * np.hanning(44100 - 13230)
    spectrum = np.abs(np.fft.rfft(part, 1 << 18))
    bins = np.fft.rfftfreq(1 << 18, 1 / SAMPLING_RATE)
    harmonics = spectrum[np.abs(bins / f0 - np.round(bins / f0)) < 0.15].max()
    between = spectrum[(np.abs(bins / f0 - np.round(bins / f0)) > 0.35) & (bins < 6 * f0)].max()
    assert bins[np.argmax(spectrum * (bins < 1.4 * f0))] == pytest.approx(f0, rel=0.006)  # the drift is a few cents
    assert 20 * np.log10(harmonics / between) > 45
    assert 20 * np.log10(harmonics / spectrum[bins > 20500].max()) > 60


def test_praat_calls_the_same_frames_voiced():
    parselmouth = pytest.importorskip("parselmouth")
    song = sing(BRIGHT, phrase(), seed=3)
    step = HOP_LENGTH / SAMPLING_RATE
    pitch = parselmouth.Sound(song.audio.astype(np.float64), SAMPLING_RATE).to_pitch_ac(step, 50, pitch_ceiling=1100)
    measured = np.array([pitch.get_value_at_time(t * step) for t in range(len(song.f0))])
    assert np.mean(np.isfinite(measured) == song.voiced) > 0.93
    assert not np.isfinite(measured[inside(~song.voiced)]).any()


@pytest.mark.parametrize("consonant", ["s", "sh", "f", "h", "p", "t", "k"])
def test_unvoiced_sounds_are_noise_without_a_period(consonant):
    song = sing(DARK, [Note(57, 0.3, "a"), Note(57, 0.3, consonant + "a")] * 8, seed=4)
    quiet = inside(~song.voiced, 1)
    lag = int(round(SAMPLING_RATE / 220))
    samples = np.flatnonzero(quiet) * HOP_LENGTH
    frames = np.stack([song.audio[p - 400 : p + 400] for p in samples])
    correlation = (frames[:, lag:] * frames[:, :-lag]).sum() / np.square(frames[:, lag:]).sum()
    assert len(samples) >= 8
    assert abs(correlation) < 0.3
    assert (song.f0[~song.voiced] == 0).all() and (song.f0[song.voiced] > 0).all()


def test_two_voices_sing_the_same_notes_at_the_same_time_with_other_spectra():
    dark, bright = (sing(voice, phrase(), seed=6) for voice in (DARK, BRIGHT))
    assert np.array_equal(dark.f0, bright.f0) and np.array_equal(dark.voiced, bright.voiced)
    assert len(dark.audio) == len(bright.audio) and len(dark.f0) == len(dark.audio) // HOP_LENGTH
    high = [np.square(np.diff(song.audio)).sum() / np.square(song.audio).sum() for song in (dark, bright)]
    assert high[1] > 1.5 * high[0]


def test_a_longer_tract_moves_the_resonances_down_in_proportion():
    def peak(scale: float) -> float:
        song = sing(Voice(formant_scale=scale, breath=1.0), [Note(45, 2.0, "ha", 0.0)], seed=1)
        spectrum = np.abs(np.fft.rfft(song.audio[30000:80000]))
        smooth = np.convolve(spectrum, np.hanning(400), mode="same")
        bins = np.fft.rfftfreq(50000, 1 / SAMPLING_RATE)
        around = (bins > 2000) & (bins < 3100)
        return bins[around][np.argmax(smooth[around])]

    assert peak(1.1) / peak(0.95) == pytest.approx(1.1 / 0.95, rel=0.03)


def test_the_same_seed_gives_the_same_song_and_another_seed_another():
    a, b, c = (sing(BRIGHT, phrase(1.0), seed=seed).audio for seed in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert phrase(seed=1) == phrase(seed=1) != phrase(seed=2)


def test_a_phrase_keeps_its_length_and_its_range_and_its_words_can_be_sung():
    notes = phrase(6.0, 52, 60)
    assert 6.0 <= sum(note.duration for note in notes) < 12.0
    assert all(52 <= note.pitch <= 60 for note in notes)
    assert all(spell(note.syllable) for note in notes if note.syllable)


def test_every_phone_can_be_sung_and_no_song_clips_or_breaks():
    for onset in ONSETS:
        song = sing(DARK, [Note(60, 0.25, onset + "o")])
        assert np.isfinite(song.audio).all() and 0.1 < np.abs(song.audio).max() <= 1.0
    assert set(PHONES) >= set(ONSETS) - {""}


@pytest.mark.parametrize("syllable", ["x", "sae", "st", "qa"])
def test_a_syllable_without_exactly_one_vowel_is_refused(syllable):
    with pytest.raises(ValueError, match=syllable):
        sing(DARK, [Note(60, 0.3, syllable)])
