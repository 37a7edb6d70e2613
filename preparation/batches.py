"""Clips of like length together, so that an encoder can take several at once and little of a batch is padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

MOST_CLIPS = 16
MOST_SECONDS = {"cuda": 120.0, "mps": 60.0}  # of sound in a batch
MOST_SECONDS_CPU = 10.0  # one long clip keeps a core busy; only short ones are faster in company
BATCHES_A_WORKER = 4  # at least, so that no worker ends long before the others


class HasSeconds(Protocol):
    seconds: float


Clip = TypeVar("Clip", bound=HasSeconds)


def make_batches(clips: Sequence[Clip], device_type: str, workers: int) -> list[list[Clip]]:
    """All clips, longest first, in batches for a device of this type. A clip over the limit is a batch of its own."""
    seconds = MOST_SECONDS.get(device_type, MOST_SECONDS_CPU)
    most = min(MOST_CLIPS, max(1, math.ceil(len(clips) / (BATCHES_A_WORKER * workers))))
    batches: list[list[Clip]] = []
    for clip in sorted(clips, key=lambda clip: -clip.seconds):
        full = not batches or len(batches[-1]) == most
        if full or (len(batches[-1]) + 1) * batches[-1][0].seconds > seconds:  # as padded to its longest
            batches.append([])
        batches[-1].append(clip)
    return batches
