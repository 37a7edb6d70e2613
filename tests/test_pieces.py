"""Cut into pieces and join them again."""

from __future__ import annotations

import numpy as np
import pytest

from inference.pieces import Fade, at_rate, cross_fade, join, plan_spans, round_to_pcm16, split
from inference.song import Song
from modules.audio.files import write_audio

LENGTHS = [1, 2, 99, 100, 101, 250, 1000]


def signal(length: int) -> np.ndarray:
    return np.random.default_rng(length).standard_normal(length).astype(np.float32)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("size", "lead_in"), [(100, 0), (100, 30), (100, 100), (33, 7), (1, 1), (5000, 10)])
@pytest.mark.parametrize("retain", [0.01, 0.5, 0.75, 1])
def test_pieces_that_are_not_changed_join_to_the_original(length, size, lead_in, retain):
    whole = signal(length)
    spans = split(length, size, lead_in)
    joined = join((whole[s.start : s.end] for s in spans), [Fade(s.lead_in, retain) for s in spans])
    np.testing.assert_allclose(np.concatenate(list(joined)), whole, atol=1e-6)


def test_joining_yields_what_is_settled_before_the_next_piece_is_made():
    made = []

    def pieces():
        for index in range(3):
            made.append(index)
            yield np.zeros(100, np.float32)

    parts = join(pieces(), [Fade(0), Fade(20), Fade(20)])
    assert (len(next(parts)), made) == (80, [0])
    assert (len(next(parts)), made) == (80, [0, 1])
    assert (len(next(parts)), made) == (100, [0, 1, 2])


def test_a_cross_fade_blends_the_retained_share_in_the_middle():
    faded = cross_fade(np.zeros(100, np.float32), np.ones(100, np.float32), Fade(100, 0.5))
    assert (faded[:25] == 0).all()
    assert (faded[75:] == 1).all()
    np.testing.assert_allclose(faded[25:75], np.linspace(0, 1, 50), atol=1e-6)


def test_a_cross_fade_between_equal_signals_changes_nothing():
    audio = signal(501)
    np.testing.assert_allclose(cross_fade(audio, audio, Fade(501, 0.75)), audio, atol=1e-6)


def test_a_cross_fade_that_keeps_the_level_does_so_whatever_the_correlation():
    before, after = (np.random.default_rng(seed).standard_normal(40_000).astype(np.float32) for seed in (1, 2))
    faded = cross_fade(before, after, Fade(40_000, keeps_level=True))
    assert abs(np.square(faded[15_000:25_000]).mean() - 1) < 0.05
    assert np.square(cross_fade(before, after, Fade(40_000))[15_000:25_000]).mean() < 0.6
    np.testing.assert_allclose(cross_fade(before, before, Fade(40_000, keeps_level=True)), before, atol=1e-4)


def test_without_forced_cuts_a_slice_is_one_piece():
    assert [(s.start, s.end, s.lead_in) for s in plan_spans(50_000, 1000)] == [(0, 50_000, 0)]


LONGEST = 180.0  # seconds


def test_a_phrase_that_is_too_long_is_cut_at_its_quietest_places_with_a_cross_fade():
    rate, length, asked = 1000, int(2.5 * LONGEST * 1000), []

    def quietest(first, last):
        asked.append((first, last))
        return first + 7

    spans = plan_spans(length, rate, longest=LONGEST, quietest=quietest)
    assert [s.end for s in spans] == [first + 7 for first, _ in asked] + [length]
    assert [s.lead_in for s in spans] == [0] + [rate] * len(asked)
    assert [s.start + s.lead_in for s in spans[1:]] == [s.end for s in spans[:-1]]
    assert all(s.end - s.start - s.lead_in <= LONGEST * rate for s in spans)
    assert all(last - first >= LONGEST * rate / 10 for first, last in asked)


def test_a_song_knows_its_quietest_place(tmp_path):
    rate = 16000
    audio = np.sin(np.arange(20 * rate) * 0.1).astype(np.float32)
    audio[12 * rate : 12 * rate + rate // 10] *= 0.01
    write_audio(tmp_path / "song.wav", audio, rate)
    song = Song(tmp_path / "song.wav")
    assert abs(song.quietest(5 * rate, 15 * rate) - 12.05 * rate) < rate / 10
    assert 0 <= song.quietest(0, rate // 100) <= rate // 100


def test_forced_cuts_are_the_users_even_when_they_are_long():
    spans = plan_spans(100_000, 1000, clip_seconds=90)
    assert [(s.start, s.end, s.lead_in) for s in spans] == [(0, 90_000, 0), (90_000, 100_000, 0)]


def test_a_rest_too_short_for_a_piece_joins_the_one_before():
    ends = [span.end for span in plan_spans(3015, 1000, clip_seconds=1)]
    assert ends == [1000, 2000, 3015]
    assert len(plan_spans(3020, 1000, clip_seconds=1)) == 4


@pytest.mark.parametrize("rates", [(44100, 44100), (32000, 44100), (48000, 44100), (44100, 32000), (11025, 44100)])
def test_lengths_at_another_rate_add_up_wherever_the_song_is_cut(rates):
    cuts = [0, 1, 7, 882, 10_001, 2 * 3600 * rates[0]]
    parts = [at_rate(b, *rates) - at_rate(a, *rates) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
    assert sum(parts) == -(-cuts[-1] * rates[1] // rates[0])


def test_16_bit_audio_passes_16_bit_rounding_unchanged_and_other_audio_to_half_a_step():
    exact = np.arange(-32768, 32768, 7).astype(np.float32) / 32768
    np.testing.assert_array_equal(round_to_pcm16(exact), exact)
    audio = np.random.default_rng(0).uniform(-1, 0.999, 1000).astype(np.float32)
    assert np.abs(round_to_pcm16(audio) - audio).max() <= 0.5 / 32768 + 1e-7
    assert round_to_pcm16(np.array([2.0, -2.0], np.float32)).tolist() == [32767 / 32768, -1]
