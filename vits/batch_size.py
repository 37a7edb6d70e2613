"""The largest batch that the memory allows, found by training steps on the longest clip."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from modules.config import Config, load_config
from modules.console import UserError, get_logger, option
from modules.data.sampler import seeded_generator
from modules.device import allow_tf32, pick_device
from modules.memory import GIB, free_memory, is_lack_of_memory, peak_memory
from modules.training.distributed import place
from vits.dataset import Batch, ClipDataset, Item, collate
from vits.step import FRAMES_APART, Learner

log = get_logger("train")

USABLE = 0.9  # of the free memory; the rest is for evaluations, fragments and other programs


def find_batch_size(config_path: str | Path, device: str | None = None, *, cuda_graphs: bool = True) -> int:
    """Say which ``train.batch_size`` is the largest that fits, and return 0; the configuration is left as it is.

    Raises UserError when not even one clip fits, or the system does not tell of its memory.
    """
    if place()[1] > 1:
        raise UserError(
            f"{option('find_batch_size')} works in one process; run it without torchrun, on one of the GPUs"
        )
    config = load_config(config_path)
    trials = Trials(config, pick_device(device), cuda_graphs=cuda_graphs)
    clips = len(trials.dataset)
    size = largest_fitting(trials.fits, clips)
    if not size:
        raise UserError(
            f"not even a batch of one clip fits into {trials.limit:.2f} GiB; lower train.crop_frames, which is the "
            f"longest that a clip can be, or take a smaller model ({config_path})"
        )
    every = ", all the clips that there are" if size == clips else ""
    log.info(
        "the largest batch that fits is %d%s: it takes %.2f of %.2f GiB; write it into %s as train.batch_size",
        size, every, trials.peaks[size], trials.limit, config_path,
    )  # fmt: skip
    return 0


def largest_fitting(fits: Callable[[int], bool], most: int) -> int:
    """The largest number from 1 to ``most`` that ``fits``, given that less than one that fits does too; else 0."""
    good, size = 0, 1
    while size <= most and fits(size):
        good, size = size, 2 * size
    bad = min(size, most + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


class Trials:
    """Training steps with one batch size after the other; ``peaks`` has the memory, GiB, of each that fitted.

    A size that would go over the ``limit``, by what the smaller ones took, is not tried in the main memory: where that
    runs out, the system ends programs.
    """

    def __init__(self, config: Config, device: torch.device, *, cuda_graphs: bool = True):
        config.train.all_in_mem = False
        self.config, self.device, self.cuda_graphs = config, device, cuda_graphs
        self.dataset = ClipDataset(config.data.training_files, config, training=True)
        self.item = longest_item(self.dataset)
        by_length = {-(-frames // FRAMES_APART): frames for frames in [*self.dataset.frames(), self.item.frames]}
        self.lengths = sorted(by_length.values(), reverse=True)  # frames, one of each that steps are recorded with
        allow_tf32(device)
        free, taken = free_memory(device), peak_memory(device)
        if free is None or taken is None:
            raise UserError(f"this system does not tell how much memory is free for {device}; try sizes by training")
        self.total, self.limit = taken + free, taken + USABLE * free
        self.peaks: dict[int, float] = {}

    def fits(self, size: int) -> bool:
        """Whether a batch of ``size`` copies of the longest clip can be learnt within the limit."""
        if self.device.type != "cuda" and self._expected(size) > self.limit:
            log.info("batch size %d: would take about %.2f GiB", size, self._expected(size))
            return False
        peak = self._try(size)
        if peak is None or peak > self.limit:
            log.info("batch size %d: does not fit", size)
            return False
        self.peaks[size] = peak
        log.info("batch size %d: %.2f GiB", size, peak)
        return True

    def _expected(self, size: int) -> float:
        """The memory of a batch, GiB, by a line through the two largest that were tried."""
        if len(self.peaks) < 2:
            return max(self.peaks.values(), default=0.0)
        (less, at_less), (more, at_more) = sorted(self.peaks.items())[-2:]
        return at_more + (size - more) * (at_more - at_less) / (more - less)

    def _try(self, size: int) -> float | None:
        """The most memory, GiB, that a batch takes; None when it is not to be had.

        Each size has networks of its own: a step that ran out of memory leaves them and its scaler in the middle of it.
        """
        gc.collect()  # those of the size before
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            learner = Learner(self.config, self.device, cuda_graphs=self.cuda_graphs)
            parts = min(self.config.train.accumulate_steps, 2)
            for number, batch in enumerate(self._batches(size, recorded=learner.alone.enabled)):
                learner.step(*[batch.to(self.device)] * parts, number=number)
            return self._taken()
        except (RuntimeError, MemoryError) as error:
            if not is_lack_of_memory(error):
                raise
            return None

    def _batches(self, size: int, *, recorded: bool) -> Iterator[Batch]:
        """What is learnt from with one size: the same batch twice, as the optimizers' state is there from the second
        step on. Where steps are ``recorded``, whose memory adds up, batches of two numbers of clips, as one of an
        epoch may have fewer: the longest clips, which run as they are, then each length of a run, longest first."""
        if not recorded:
            yield from [collate([self.item] * size)] * 2
            return
        sizes = [clips for clips in (size, size - 1) if clips]
        for frames, clips in [*((self.item.frames, n) for n in sizes), *itertools.product(self.lengths, sizes)]:
            yield collate([self.item.crop(0, frames, self.config.data.hop_length)] * clips)

    def _taken(self) -> float:
        """The most memory that a size has taken, GiB."""
        taken = peak_memory(self.device)
        if self.device.type == "cuda":  # the driver's share, for recordings above all, is not in PyTorch's count
            taken += max(0.0, self.total - free_memory(self.device) - torch.cuda.memory_reserved(self.device) / GIB)
        return taken


def longest_item(dataset: ClipDataset) -> Item:
    """The item with the most frames that training can make of the clips."""
    frames = dataset.frames()
    path = dataset.paths[max(range(len(frames)), key=frames.__getitem__)]
    return dataset.vary(dataset.read(path), seeded_generator(dataset.config.train.seed, 0, 0))
