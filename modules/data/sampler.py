"""In which order a training run meets its clips, and where the random numbers about each of them come from.

Both are functions of a seed, the epoch and the clip alone. So a run that was stopped goes on with the very batches that
it would have had, whatever the number of loader workers, and several processes agree without a word on who has which.
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

# Clips of similar lengths are sought among those of so many batches: of clips of 2 to 10 seconds in batches of six, a
# third of the frames would be padding otherwise, and so a sixteenth is.
POOL = 8


def seeded_generator(*place: int) -> torch.Generator:
    """The random numbers that belong to a place in training: (seed, epoch), or (seed, epoch, clip)."""
    return torch.Generator().manual_seed(derive_seed(*place))


def derive_seed(seed: int, *place: int) -> int:
    """The seed of the random numbers that belong to a place in training, by numpy's SeedSequence."""
    sequence = np.random.SeedSequence(seed % 2**64, spawn_key=place)
    return int(sequence.generate_state(1, np.uint64)[0])


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, clip): a new order each epoch, the same for the same seed, resumable at any batch.

    An optimisation step takes ``accumulated`` batches in each of ``processes`` processes, ``per_step`` together, one
    after the other in the epoch's order; process number ``process`` iterates over its own. No batch is left out: where
    the last step of an epoch lacks some, the first of the same epoch come again, and so all processes have as many.

        batches of the epoch   0 1 2 3 | 4 5 6 7 | 8 0 1 2      9 batches, 2 processes that accumulate 2
        process 0              0 1     | 4 5     | 8 0
        process 1                  2 3 |     6 7 |     1 2

    Given the ``frames`` of each clip, a batch has clips of similar lengths, so that little of it is padding: those of
    eight batches in the epoch's order are shared out by length, and come in an order of their own.

    Iteration goes from epoch to epoch without an end, so that a loader has the next one's first batches ready in time.
    The length is the number of batches of an epoch for all processes, none counted twice.
    """

    def __init__(
        self, clips: int, batch_size: int, seed: int, *, process: int = 0, processes: int = 1, accumulated: int = 1,
        frames: Sequence[int] | None = None,
    ):  # fmt: skip
        self.frames = frames
        self.clips, self.batch_size, self.seed = clips, batch_size, seed
        self.process, self.accumulated = process, accumulated
        self.per_step = processes * accumulated
        self.epoch, self.first_batch = 1, 0

    def start(self, epoch: int, first_batch: int = 0) -> None:
        """Choose where the next iteration begins: at batch number ``first_batch`` of ``epoch``."""
        self.epoch, self.first_batch = epoch, first_batch

    def __len__(self) -> int:
        return -(-self.clips // self.batch_size)

    def steps(self, first_batch: int = 0) -> int:
        """How many optimisation steps an epoch takes, from batch number ``first_batch`` on."""
        return -(-(len(self) - first_batch) // self.per_step)

    def describe_steps(self) -> str:
        """How an epoch's batches make steps, in a sentence."""
        again = self.steps() * self.per_step - len(self)
        return (
            f"an epoch's {len(self)} batches make {self.steps()} steps of {self.per_step}"
            f"{f'; the last repeats {again} of them' if again else ''}"
        )

    def epoch_batches(self, epoch: int) -> list[list[int]]:
        """The clips of each batch of an epoch, for all processes."""
        generator = seeded_generator(self.seed, epoch)
        order = torch.randperm(self.clips, generator=generator).tolist()
        if self.frames is None:
            return list(_pieces(order, self.batch_size))
        batches = []
        for pool in _pieces(order, POOL * self.batch_size):
            alike = list(_pieces(sorted(pool, key=self.frames.__getitem__), self.batch_size))
            batches += [alike[number] for number in torch.randperm(len(alike), generator=generator)]
        return batches

    def process_batches(self, epoch: int, first_batch: int = 0) -> Iterator[list[tuple[int, int]]]:
        """What this process has of an epoch, from batch number ``first_batch`` on."""
        batches = self.epoch_batches(epoch)
        for step in range(first_batch, len(batches), self.per_step):
            for place in range(self.accumulated):
                number = step + self.process * self.accumulated + place
                yield [(epoch, clip) for clip in batches[number % len(batches)]]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first_batch = self.first_batch
        for epoch in itertools.count(self.epoch):
            yield from self.process_batches(epoch, first_batch)
            first_batch = 0


def _pieces(clips: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(clips), size):
        yield clips[start : start + size]


def in_steps(batches: Iterable[Batch | UserError], accumulated: int) -> Iterator[list[Batch]]:
    """The batches of each optimisation step. An error in the place of a batch is raised."""
    step = []
    for batch in batches:
        if isinstance(batch, UserError):
            raise batch
        step.append(batch)
        if len(step) == accumulated:
            yield step
            step = []
