"""Clips of like length together, none lost, within the limits."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from preparation.batches import MOST_CLIPS, MOST_SECONDS, MOST_SECONDS_CPU, make_batches


def clips_of(seconds):
    return [SimpleNamespace(seconds=float(length)) for length in seconds]


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("count", [1, 2, 9, 500])
@pytest.mark.parametrize("workers", [1, 4])
def test_every_clip_is_in_one_batch_within_the_limits(device, count, workers):
    clips = clips_of(np.random.default_rng(count).uniform(0.3, 15, count))
    batches = make_batches(clips, device, workers)
    assert sorted(id(clip) for batch in batches for clip in batch) == sorted(map(id, clips))
    for batch in batches:
        padded = len(batch) * max(clip.seconds for clip in batch)
        assert len(batch) <= MOST_CLIPS and (len(batch) == 1 or padded <= MOST_SECONDS.get(device, MOST_SECONDS_CPU))
    lengths = [clip.seconds for batch in batches for clip in batch]
    assert lengths == sorted(lengths, reverse=True)


def test_few_clips_are_spread_over_the_workers():
    assert len(make_batches(clips_of([1] * 16), "cuda", 4)) == 16
    assert len(make_batches(clips_of([1] * 160), "cuda", 2)) == 10


def test_long_clips_go_alone_on_a_cpu_and_together_on_a_gpu():
    clips = clips_of([9] * 40)
    assert max(map(len, make_batches(clips, "cpu", 1))) == 1
    assert max(map(len, make_batches(clips, "cuda", 1))) == 10
