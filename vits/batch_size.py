"""Find the largest batch size that fits into memory, by training steps on the longest clip."""

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
from modules.training.distributed import launch_world_size
from vits.dataset import Batch, ClipDataset, Item, collate
from vits.step import FRAME_MULTIPLE, Learner

log = get_logger("train")

USABLE = 0.9  # share of the free memory; the rest is for validation, fragmentation and other programs


def find_batch_size(config_path: str | Path, device: str | None = None, *, cuda_graphs: bool = True) -> int:
    """Log the largest ``train.batch_size`` that fits, and return 0; the configuration is not changed.

    Raises UserError when not even one clip fits, or the free memory is unknown.
    """
    if launch_world_size() > 1:
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
    note = ", all the clips that there are" if size == clips else ""
    log.info(
        "the largest batch that fits is %d%s: it takes %.2f of %.2f GiB; write it into %s as train.batch_size",
        size, note, trials.peaks[size], trials.limit, config_path,
    )  # fmt: skip
    return 0


def largest_fitting(fits: Callable[[int], bool], most: int) -> int:
    """Return the largest number from 1 to ``most`` that ``fits``, or 0. Assumes that all smaller numbers fit too."""
    good, size = 0, 1
    while size <= most and fits(size):
        good, size = size, 2 * size
    bad = min(size, most + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


class Trials:
    """Tries batch sizes by training steps; ``peaks`` maps each size that fitted to its peak memory, GiB.

    Except on CUDA devices, a size that by extrapolation would exceed the ``limit`` is not tried, because the system
    kills programs when the main memory runs out.
    """

    def __init__(self, config: Config, device: torch.device, *, cuda_graphs: bool = True):
        config.train.all_in_mem = False
        self.config, self.device, self.cuda_graphs = config, device, cuda_graphs
        self.dataset = ClipDataset(config.data.training_files, config, training=True)
        self.item = longest_item(self.dataset)
        by_length = {-(-frames // FRAME_MULTIPLE): frames for frames in [*self.dataset.frames(), self.item.frames]}
        self.lengths = sorted(by_length.values(), reverse=True)  # frames, one for each padded length of a CUDA graph
        allow_tf32(device)
        free, taken = free_memory(device), peak_memory(device)
        if free is None or taken is None:
            raise UserError(f"the free memory of {device} is unknown on this system; try sizes by training")
        self.total, self.limit = taken + free, taken + USABLE * free
        self.peaks: dict[int, float] = {}

    def fits(self, size: int) -> bool:
        """Return whether training on a batch of ``size`` copies of the longest clip stays within the limit."""
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
        """Extrapolate the memory of a batch, GiB, from the two largest sizes tried."""
        if len(self.peaks) < 2:
            return max(self.peaks.values(), default=0.0)
        (less, at_less), (more, at_more) = sorted(self.peaks.items())[-2:]
        return at_more + (size - more) * (at_more - at_less) / (more - less)

    def _try(self, size: int) -> float | None:
        """Return the peak memory, GiB, of steps with batches of ``size``; None if memory runs out.

        Each size gets new networks, because running out of memory leaves networks and scaler in an undefined state.
        """
        gc.collect()  # the networks of the previous size
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            learner = Learner(self.config, self.device, cuda_graphs=self.cuda_graphs)
            batches_a_step = min(self.config.train.accumulate_steps, 2)
            for number, batch in enumerate(self._batches(size, graphed=learner.graphed_step.enabled)):
                learner.step(*[batch.to(self.device)] * batches_a_step, number=number)
            return self._peak()
        except (RuntimeError, MemoryError) as error:
            if not is_lack_of_memory(error):
                raise
            return None

    def _batches(self, size: int, *, graphed: bool) -> Iterator[Batch]:
        """Yield the batches to try a size with: one batch twice, since the first step allocates the optimizers' state.

        With ``graphed`` steps, whose memory adds up, batches of ``size`` and ``size - 1`` clips (an epoch's last batch
        may have fewer): first the longest clips, which run eagerly, then each length of the data set, longest first.
        """
        if not graphed:
            yield from [collate([self.item] * size)] * 2
            return
        sizes = [clips for clips in (size, size - 1) if clips]
        for frames, clips in [*((self.item.frames, n) for n in sizes), *itertools.product(self.lengths, sizes)]:
            yield collate([self.item.crop(0, frames, self.config.data.hop_length)] * clips)

    def _peak(self) -> float:
        """Return the peak memory of the current size, GiB."""
        taken = peak_memory(self.device)
        if self.device.type == "cuda":  # PyTorch does not count the driver's memory, mostly for CUDA graphs
            taken += max(0.0, self.total - free_memory(self.device) - torch.cuda.memory_reserved(self.device) / GIB)
        return taken


def longest_item(dataset: ClipDataset) -> Item:
    """Return the longest item that training can get from the clips."""
    frames = dataset.frames()
    path = dataset.paths[max(range(len(frames)), key=frames.__getitem__)]
    return dataset.crop_and_augment(dataset.read(path), seeded_generator(dataset.config.train.seed, 0, 0))
