"""The training loop of both trainers: steps, progress, checkpoints, autosaves and a clean stop on a signal."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from modules.console import UserError, get_logger, progress
from modules.data.sampler import EpochBatches, in_steps
from modules.memory import is_lack_of_memory
from modules.training import distributed
from modules.training.autosave import AutosaveTimer
from modules.training.interruption import StopSignal
from modules.training.throughput import ThroughputMeter

log = get_logger("train")

MAX_SKIPPED_STEPS = 50  # in a row; fp16's loss scale needs up to 16 to settle
CHECK_EVERY = 10  # steps between updates of the progress bar and checks of the losses, which wait for the device


class TrainingRun(ABC):
    """The position of a run and its training loop.

    ``step`` counts the optimisation steps done, ``epoch`` is the current epoch (from 1), ``batch`` counts the batches
    of this epoch done by all processes together. All random numbers are functions of the seed and of these three, so a
    run resumes exactly from them, with any number of processes.

    A subclass implements a step (``learn_from``), its display (``progress_fields``, ``log_step``) and checkpoints
    (``save``, ``validate_and_save``). Its constructor resumes, and sets ``start_message``, which names the
    checkpoint.
    """

    epochs: int
    accumulate_steps: int
    log_interval: int
    memory_advice: str  # for the error about a batch that does not fit into memory
    losses_advice: str  # for the error about losses that are not finite

    def __init__(
        self, folder: Path, device: torch.device, batches: EpochBatches, loader: DataLoader, save_every_minutes: float
    ):
        self.folder, self.device, self.batches, self.loader = folder, device, batches, loader
        self.step, self.epoch, self.batch, self.saved_step = 0, 1, 0, 0
        self.skipped = SkippedSteps(device)
        self.stopping = 0  # the signal on which all ranks stop
        self.autosave_timer = AutosaveTimer(save_every_minutes)
        self.autosaves = []  # checkpoints to delete when the next one is written
        self.start_message = ""

    @abstractmethod
    def learn_from(self, *batches: Any) -> tuple[Any, Tensor]:
        """Make one optimisation step; returns its result, and a number that is finite if the gradients were."""

    @abstractmethod
    def progress_fields(self, result: Any) -> dict[str, str]:
        """Return the fields of the progress bar: losses and learning rate."""

    @abstractmethod
    def describe_not_finite(self, result: Any) -> str:
        """Name the numbers of a step that are not finite."""

    @abstractmethod
    def log_step(self, training_log: Any, result: Any) -> None:
        """Write a step to the training log."""

    @abstractmethod
    def validate_and_save(self, training_log: Any, stop: StopSignal) -> None:
        """Validate and save on rank 0, if it is time to; a ``stop`` cuts the validation short."""

    @abstractmethod
    def save(self, *, autosave: bool = False) -> None:
        """Write the checkpoint of this step. An autosave is deleted when the next checkpoint is written.

        Raises UserError when it cannot be written; the former checkpoints stay.
        """

    @property
    def skipped_steps(self) -> int:
        """The number of steps skipped so far; waits for the device."""
        return self.skipped.read()[0]

    @property
    def has_diverged(self) -> bool:
        """Whether all of the last steps were skipped, so that the former checkpoint is better than a new one."""
        return self.skipped.read()[1] >= CHECK_EVERY

    def try_to_save(self, *, autosave: bool = False) -> bool:
        """Save. On failure log a warning and go on: the former checkpoints are intact, and later there may be room."""
        self.autosave_timer.restart()
        if self.has_diverged:
            log.warning("step %d is not saved: the steps before it had losses that were not finite", self.step)
            return False
        try:
            self.save(autosave=autosave)
        except UserError as error:
            log.warning("step %d is not saved: %s. Training goes on", self.step, error)
            return False
        return True

    def loop(self, training_log: Any, stop: StopSignal) -> int:
        """Train to the last epoch or until ``stop`` is set; returns the exit code, 128 + the number of a signal.

        The last step is saved, also before an error is raised, except for LostProcess on GPUs. After an error within a
        step, the saved discriminator may have one more update than the generator.
        """
        log.info(self.start_message)
        if self.batches.per_step > 1:
            log.info(self.batches.describe_steps())
        self._close_epoch()
        if self.epoch > self.epochs:
            log.info("all %d epochs are done; raise train.epochs to go on", self.epochs)
            return 0
        if self.device.type == "cpu":
            log.info("training on the CPU, which is slow; with a GPU install the PyTorch build made for it")
        total = self.step + (self.epochs - self.epoch) * self.batches.steps() + self.batches.steps(self.batch)
        self.throughput = ThroughputMeter(self.step, total, self.device)
        self.batches.start(self.epoch, self.batch)
        feed = self.throughput.batches(in_steps(self.loader, self.accumulate_steps))
        with progress(total=total, initial=self.step, description="training", unit="step") as bar:
            try:
                while self.epoch <= self.epochs and not self.stopping:
                    self.run_epoch(feed, training_log, stop, bar)
            except KeyboardInterrupt:  # the second one: at once
                raise
            except BaseException as error:
                # A GPU keeps waiting for the gradients of the lost process, and saving would wait for the GPU.
                if self.device.type != "cuda" or not isinstance(error, distributed.LostProcess):
                    self._save_last_step()
                raise
            self._save_last_step()
        if self.skipped_steps:
            log.warning("%d steps had losses that were not finite and were skipped", self.skipped_steps)
        if self.stopping:
            log.info("stopped at step %d; the same command goes on from step %d", self.step, self.saved_step)
            return 128 + self.stopping
        return 0

    def _save_last_step(self) -> None:
        if not distributed.is_rank_zero() or self.step == self.saved_step:
            return
        if self.has_diverged:
            log.warning(
                "step %d is not saved, because the steps before it had losses that were not finite; the newest "
                "checkpoint is of step %d", self.step, self.saved_step,
            )  # fmt: skip
        else:
            self.save()

    def run_epoch(self, feed: Iterator[list[Any]], training_log: Any, stop: StopSignal, bar) -> None:
        """Train the rest of the current epoch on the batches of ``feed``; returns early, after a step, on a signal."""
        began = time.monotonic()
        while self.batch < len(self.batches) and not self.stopping:
            batches = next(feed)
            result = self.learn(*(batch.to(self.device) for batch in batches))
            self.throughput.step_done()
            if self.step % CHECK_EVERY == 0 or getattr(bar, "due", False):
                share, skipped = f"{self.throughput.data_share:.0%}", self.skipped.known
                fields = self.progress_fields(result)
                bar.set_postfix({"epoch": self.epoch, **fields, "data": share, "skipped": skipped}, False)
            bar.update()
            if self.step % self.log_interval == 0:
                self.log_step(training_log, result)
            if distributed.is_rank_zero():
                self.validate_and_save(training_log, stop)
            # A barrier, where the other ranks wait for rank 0; all ranks stop at the same step.
            self.stopping = distributed.all_reduce_max(stop.number)
        if self.batch >= len(self.batches):
            log.debug("====> Epoch: %d, cost %.2f s", self.epoch, time.monotonic() - began)
        self._close_epoch()

    def _close_epoch(self) -> None:
        if self.batch >= len(self.batches):
            self.epoch, self.batch = self.epoch + 1, 0

    def learn(self, *batches: Any) -> Any:
        """Make one step, skipped if its gradients are not finite. Raises UserError after too many skipped in a row."""
        try:
            result, gradient = self.learn_from(*batches)
        except (RuntimeError, MemoryError) as error:
            if not is_lack_of_memory(error):
                raise
            size = self.batches.batch_size
            raise UserError(
                f"the device's memory is too small for train.batch_size {size}; {self.memory_advice}"
            ) from error
        self.step, self.batch = self.step + 1, self.batch + self.batches.per_step
        self.skipped.count(gradient)
        if self.step % CHECK_EVERY == 0 or self.step % self.log_interval == 0:
            self._check(result)
        return result

    def _check(self, result: Any) -> None:
        former, (_, in_a_row) = self.skipped.known, self.skipped.read()
        if self.skipped.known > former:
            log.debug("%d steps skipped up to step %d", self.skipped.known - former, self.step)
        if in_a_row >= MAX_SKIPPED_STEPS:
            raise UserError(
                f"the losses have not been finite for {in_a_row} steps ({self.describe_not_finite(result)}); "
                f"{self.losses_advice}, and run the same command: it goes on from step {self.saved_step}"
            )


class SkippedSteps:
    """Counts on the device the steps that were skipped because their gradients were not finite.

    ``known`` is their number at the last ``read``.
    """

    def __init__(self, device: torch.device):
        self.counts = torch.zeros(2, dtype=torch.long, device=device)  # in total, and most recently in a row
        self.known = 0

    def count(self, gradient: Tensor) -> None:
        """Count a step, by a number (0-dimensional) that is finite if its gradients were; does not block."""
        bad = (~gradient.isfinite()).long()
        self.counts = torch.stack([self.counts[0] + bad, (self.counts[1] + 1) * bad])

    def read(self) -> tuple[int, int]:
        """Return the total, and the number most recently in a row; waits for the device."""
        self.known, in_a_row = self.counts.tolist()
        return self.known, in_a_row
