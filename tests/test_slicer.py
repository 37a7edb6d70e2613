"""Cuts of recordings. The tables were measured on so-vits-svc 4.1."""

from __future__ import annotations

import numpy as np
import pytest

from modules.audio.slicer import Slicer, _choose_cut
from modules.console import UserError

RATE = 44100


def signal(*parts: float) -> np.ndarray:
    """Concatenate parts in seconds: positive ones are a tone, negative ones silence."""
    pieces = []
    for seconds in parts:
        samples = int(abs(seconds) * RATE)
        time = np.arange(samples) / RATE
        pieces.append(np.zeros(samples) if seconds < 0 else 0.3 * np.sin(2 * np.pi * 220 * time))
    return np.concatenate(pieces).astype(np.float32)


@pytest.mark.parametrize(
    ("parts", "chunks"),
    [
        ((6,), [(0, 0, 264600)]),
        ((3, -1, 3), [(0, 0, 308700)]),
        ((6, -0.2, 6), [(0, 0, 538020)]),
        ((4.5, -1, 6), [(0, 0, 200214), (1, 200214, 200214), (0, 200214, 507150)]),  # longer with the silence
        ((6, -1, 6), [(0, 0, 266364), (1, 266364, 266364), (0, 266364, 573300)]),
        ((6, -7, 6), [(0, 0, 266364), (1, 266364, 351918), (0, 351918, 837900)]),
        ((6, -12, 6), [(0, 0, 266364), (1, 266364, 572418), (0, 572418, 1058400)]),
        ((-7, 6), [(1, 0, 87318), (0, 87318, 573300)]),
        ((-2, 6), [(0, 0, 352800)]),
        ((6, -2), [(0, 0, 266364), (1, 266364, 352800)]),
    ],
)
def test_published_cuts(parts, chunks):
    found = Slicer(RATE).slice(signal(*parts))
    assert [(chunk.is_silence, chunk.start, chunk.end) for chunk in found] == chunks


def test_chunks_cover_everything_in_order_and_alternate():
    rng = np.random.default_rng(3)
    for _ in range(20):
        parts = rng.uniform(0.1, 3, 12) * rng.choice([-1, 1], 12)
        audio = signal(*parts)
        slicer = Slicer(RATE, min_length=1000, max_sil_kept=rng.integers(100, 900))
        chunks = slicer.slice(audio)
        assert chunks[0].start == 0 and chunks[-1].end == len(audio)
        for one, two in zip(chunks[:-1], chunks[1:], strict=True):
            assert one.end == two.start and one.is_silence != two.is_silence


def test_what_is_cut_out_is_silent_and_all_sound_is_kept():
    audio = signal(-3, 4, -2, 2, -0.4, 5, -6)
    chunks = Slicer(RATE, min_length=1000, max_sil_kept=300).slice(audio)
    assert sum(chunk.is_silence for chunk in chunks) >= 3
    for chunk in chunks:
        if chunk.is_silence:
            assert not audio[chunk.start : chunk.end].any()


def test_a_long_silence_is_removed_between_the_quietest_frames_near_its_ends():
    rng = np.random.default_rng(5)
    for _ in range(300):
        start, kept = 3, int(rng.integers(1, 12))
        end = start + kept + int(rng.integers(1, 2 * kept + 2))
        rms = rng.integers(0, 6, end + 4)
        first, last = _choose_cut(rms, start, end, kept)
        assert start <= first <= start + kept and end - kept <= last <= end and first <= last
        assert rms[first] == rms[start : start + kept + 1].min() and rms[last] == rms[end - kept : end + 1].min()


def test_shortest_sounds_are_one_chunk():
    for samples in (1, 100, 250):
        (chunk,) = Slicer(RATE).slice(np.zeros(samples, np.float32))
        assert (chunk.is_silence, chunk.start, chunk.end) == (False, 0, samples)


@pytest.mark.parametrize("wrong", [{"min_length": 100}, {"hop_size": 400}, {"max_sil_kept": 10}, {"hop_size": 0}])
def test_lengths_that_contradict_each_other_are_refused(wrong):
    with pytest.raises(UserError, match="min_length >= min_interval >= hop_size"):
        Slicer(RATE, **wrong)
