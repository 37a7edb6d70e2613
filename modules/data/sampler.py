"""The order of clips in a training run, and the random seeds for each clip.

Both depend only on a seed, the epoch and the clip. So a resumed run continues with the same batches, for any number of
loader workers, and several processes share the batches without communication.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import Sampler

from modules.console import UserError

Batch = TypeVar("Batch")

# Batches of clips of similar lengths are formed within pools of this many batches. For clips of 2 to 10 seconds in
# batches of six, 1/16 of the frames is padding, against 1/3 without.
POOL = 8


def seeded_generator(*key: int) -> torch.Generator:
    """Return the random generator of a point in training, ``key`` being (seed, epoch) or (seed, epoch, clip)."""
    return torch.Generator().manual_seed(derive_seed(*key))


def derive_seed(seed: int, *key: int) -> int:
    """Derive the seed of a point in training from the run's seed and ``key``, by numpy's SeedSequence."""
    sequence = np.random.SeedSequence(seed % 2**64, spawn_key=key)
    return int(sequence.generate_state(1, np.uint64)[0])


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, clip): a new order each epoch, the same for the same seed, resumable at any batch.

    An optimisation step takes ``accumulated`` batches in each of ``world_size`` processes, ``per_step`` in total,
    consecutive in the epoch's order; each ``rank`` iterates over its own. No batch is dropped: the last
    step of an epoch is filled up with the epoch's first batches, so that all ranks have equally many.

        batches of the epoch   0 1 2 3 | 4 5 6 7 | 8 0 1 2      9 batches, 2 processes that accumulate 2
        rank 0                 0 1     | 4 5     | 8 0
        rank 1                     2 3 |     6 7 |     1 2

    Given the ``frames`` of each clip, a batch has clips of similar lengths, which saves padding: the clips of POOL
    batches are sorted by length, split into batches, and these are shuffled.

    Iteration continues from epoch to epoch without end, so that a loader prefetches across epochs. The length is the
    number of batches of an epoch for all processes together, without repeated ones.
    """

    def __init__(
        self, clips: int, batch_size: int, seed: int, *, rank: int = 0, world_size: int = 1, accumulated: int = 1,
        frames: Sequence[int] | None = None,
    ):  # fmt: skip
        self.frames = frames
        self.clips, self.batch_size, self.seed = clips, batch_size, seed
        self.rank, self.accumulated = rank, accumulated
        self.per_step = world_size * accumulated
        self.epoch, self.first_batch = 1, 0

    def start(self, epoch: int, first_batch: int = 0) -> None:
        """Start the next iteration at batch number ``first_batch`` of ``epoch``."""
        self.epoch, self.first_batch = epoch, first_batch

    def __len__(self) -> int:
        return -(-self.clips // self.batch_size)

    def steps(self, first_batch: int = 0) -> int:
        """Return the number of optimisation steps of an epoch, from batch number ``first_batch`` on."""
        return -(-(len(self) - first_batch) // self.per_step)

    def describe_steps(self) -> str:
        """Return a message about how an epoch's batches form steps."""
        again = self.steps() * self.per_step - len(self)
        return (
            f"an epoch's {len(self)} batches make {self.steps()} steps of {self.per_step}"
            f"{f'; the last repeats {again} of them' if again else ''}"
        )

    def epoch_batches(self, epoch: int) -> list[list[int]]:
        """Return the clips of each batch of an epoch, for all processes."""
        generator = seeded_generator(self.seed, epoch)
        order = torch.randperm(self.clips, generator=generator).tolist()
        if self.frames is None:
            return list(_pieces(order, self.batch_size))
        batches = []
        for pool in _pieces(order, POOL * self.batch_size):
            alike = list(_pieces(sorted(pool, key=self.frames.__getitem__), self.batch_size))
            batches += [alike[number] for number in torch.randperm(len(alike), generator=generator)]
        return batches

    def rank_batches(self, epoch: int, first_batch: int = 0) -> Iterator[list[tuple[int, int]]]:
        """Yield this rank's batches of an epoch, from batch number ``first_batch`` on."""
        batches = self.epoch_batches(epoch)
        for step in range(first_batch, len(batches), self.per_step):
            first = step + self.rank * self.accumulated
            for number in range(first, first + self.accumulated):
                yield [(epoch, clip) for clip in batches[number % len(batches)]]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first_batch = self.first_batch
        for epoch in itertools.count(self.epoch):
            yield from self.rank_batches(epoch, first_batch)
            first_batch = 0


def _pieces(clips: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(clips), size):
        yield clips[start : start + size]


def in_steps(batches: Iterable[Batch | UserError], accumulated: int) -> Iterator[list[Batch]]:
    """Group batches into optimisation steps. Raises an error that a worker passes in place of a batch."""
    step = []
    for batch in batches:
        if isinstance(batch, UserError):
            raise batch
        step.append(batch)
        if len(step) == accumulated:
            yield step
            step = []
