"""In which order a training run meets its clips, and where the random numbers about each of them come from.

Both are functions of a seed, the epoch and the clip alone. So a run that was stopped goes on with the very batches that
it would have had, whatever the number of loader workers.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


def generator_of(*place: int) -> torch.Generator:
    """The random numbers that belong to a place in training: (seed, epoch), or (seed, epoch, clip)."""
    return torch.Generator().manual_seed(hash(place) % 2**63)  # the hash of whole numbers is the same in every process


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, clip): a new order each epoch, the same for the same seed, resumable at any batch."""

    def __init__(self, clips: int, batch_size: int, seed: int):
        self.clips, self.batch_size, self.seed = clips, batch_size, seed
        self.epoch, self.first_batch = 1, 0

    def start(self, epoch: int, first_batch: int = 0) -> None:
        """Choose what the next iteration gives: ``epoch``, from batch number ``first_batch`` on."""
        self.epoch, self.first_batch = epoch, first_batch

    def __len__(self) -> int:
        return -(-self.clips // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = torch.randperm(self.clips, generator=generator_of(self.seed, self.epoch)).tolist()
        for start in range(self.first_batch * self.batch_size, self.clips, self.batch_size):
            yield [(self.epoch, index) for index in order[start : start + self.batch_size]]
