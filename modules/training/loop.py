"""The course of a training run, whatever is trained: its loop, what it tells, its saves, and a clean end when it is
told to stop."""

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
from modules.training.autosave import Autosave
from modules.training.interruption import StopSignal
from modules.training.throughput import Pace

log = get_logger("train")

MOST_BAD_STEPS = 50  # in a row; fp16's loss scale needs up to 16 to settle
LOOK_EVERY = 10  # steps: how often the program waits for the device, to show and to check what it has come to


class TrainingRun(ABC):
    """How far a run is, and how it goes on.

    ``step`` counts optimisation steps done, ``epoch`` is the current one (from 1), ``batch`` the batches of it done, by
    all processes together. Everything that is drawn is a function of the seed and of these, so a run goes on exactly
    from them, in as many processes as it is given.

    A subclass says what is learnt (``learn_from``), shown (``shown``, ``record``), saved (``save``, ``keep``) and read
    back (its constructor, which leaves a sentence on that in ``beginning``).
    """

    epochs: int
    accumulate_steps: int
    log_interval: int
    cure_of_memory: str  # in the sentence about a batch that does not fit
    cure_of_losses: str  # in that about losses that are not finite

    def __init__(
        self, folder: Path, device: torch.device, batches: EpochBatches, loader: DataLoader, save_every_minutes: float
    ):
        self.folder, self.device, self.batches, self.loader = folder, device, batches, loader
        self.step, self.epoch, self.batch, self.saved_step = 0, 1, 0, 0
        self.skipped = SkippedSteps(device)
        self.stopping = 0  # the signal that all processes have agreed to stop for
        self.autosave, self.passing = Autosave(save_every_minutes), []
        self.beginning = ""

    @abstractmethod
    def learn_from(self, *batches: Any) -> tuple[Any, Tensor]:
        """One optimisation step; returns what it came to, and a number that is finite if the gradients were."""

    @abstractmethod
    def shown(self, result: Any) -> dict[str, str]:
        """What the bar says of a step: its losses and learning rate."""

    @abstractmethod
    def not_finite(self, result: Any) -> str:
        """Which numbers of a step are not finite, in words."""

    @abstractmethod
    def record(self, logbook: Any, result: Any) -> None:
        """Enter a step in the logbook."""

    @abstractmethod
    def keep(self, logbook: Any, stop: StopSignal) -> None:
        """Validate and save, in the first process, where it is time to; a ``stop`` cuts a validation short."""

    @abstractmethod
    def save(self, *, passing: bool = False) -> None:
        """Write the checkpoint of this step; a ``passing`` one is there until the next one is. Raises UserError, and
        what is there stays, when it cannot."""

    @property
    def bad_steps(self) -> int:
        """How many steps were skipped so far; waits for the device."""
        return self.skipped.read()[0]

    @property
    def is_lost(self) -> bool:
        """Whether the last steps were skipped one after the other, so that the checkpoint before them is worth more."""
        return self.skipped.read()[1] >= LOOK_EVERY

    def try_to_save(self, *, passing: bool = False) -> bool:
        """Save; when that fails say so and go on: what is there is intact, and the next time there may be room."""
        self.autosave.restart()
        if self.is_lost:
            log.warning("step %d is not saved: the steps before it had losses that were not finite", self.step)
            return False
        try:
            self.save(passing=passing)
        except UserError as error:
            log.warning("step %d is not saved: %s. Training goes on", self.step, error)
            return False
        return True

    def loop(self, logbook: Any, stop: StopSignal) -> int:
        """Train to the last epoch or until ``stop`` has come.

        The last step is saved, before an error too, but for that of a lost process where gradients travel between GPUs.
        An error within a step may leave the discriminator one update further than that step had it. Returns the exit
        code, 128 + the signal's number where one has come.
        """
        log.info(self.beginning)
        if self.batches.per_step > 1:
            log.info(self.batches.describe_steps())
        self._close_epoch()
        if self.epoch > self.epochs:
            log.info("all %d epochs are done; raise train.epochs to go on", self.epochs)
            return 0
        if self.device.type == "cpu":
            log.info("training on the CPU, which is slow; with a GPU install the PyTorch build made for it")
        total = self.step + (self.epochs - self.epoch) * self.batches.steps() + self.batches.steps(self.batch)
        self.pace = Pace(self.step, total, self.device)
        self.batches.start(self.epoch, self.batch)
        feed = self.pace.batches(in_steps(self.loader, self.accumulate_steps))
        with progress(total=total, initial=self.step, description="training", unit="step") as bar:
            try:
                while self.epoch <= self.epochs and not self.stopping:
                    self.run_epoch(feed, logbook, stop, bar)
            except KeyboardInterrupt:  # the second one: at once
                raise
            except BaseException as error:
                # A GPU goes on waiting for the gradients of a process that is gone, and a save would wait for the GPU.
                if self.device.type != "cuda" or not isinstance(error, distributed.OthersAreGone):
                    self._save_the_end()
                raise
            self._save_the_end()
        if self.bad_steps:
            log.warning("%d steps had losses that were not finite and were skipped", self.bad_steps)
        if self.stopping:
            log.info("stopped at step %d; the same command goes on from step %d", self.step, self.saved_step)
            return 128 + self.stopping
        return 0

    def _save_the_end(self) -> None:
        if not distributed.is_first() or self.step == self.saved_step:
            return
        if self.is_lost:
            log.warning(
                "step %d is not saved, for the steps before it had losses that were not finite; the newest checkpoint "
                "is that of step %d", self.step, self.saved_step,
            )  # fmt: skip
        else:
            self.save()

    def run_epoch(self, feed: Iterator[list[Any]], logbook: Any, stop: StopSignal, bar) -> None:
        """The rest of the current epoch, from what ``feed`` gives of it; returns early, at a step's end, when a stop
        signal has come."""
        began = time.monotonic()
        while self.batch < len(self.batches) and not self.stopping:
            batches = next(feed)
            result = self.learn(*(batch.to(self.device) for batch in batches))
            self.pace.learnt()
            if self.step % LOOK_EVERY == 0 or getattr(bar, "due", False):
                share, skipped = f"{self.pace.data_share:.0%}", self.skipped.known
                bar.set_postfix({"epoch": self.epoch, **self.shown(result), "data": share, "skipped": skipped}, False)
            bar.update()
            if self.step % self.log_interval == 0:
                self.record(logbook, result)
            if distributed.is_first():
                self.keep(logbook, stop)
            self.stopping = distributed.largest(stop.number)  # all wait for the first here, and stop at the same step
        if self.batch >= len(self.batches):
            log.debug("====> Epoch: %d, cost %.2f s", self.epoch, time.monotonic() - began)
        self._close_epoch()

    def _close_epoch(self) -> None:
        if self.batch >= len(self.batches):
            self.epoch, self.batch = self.epoch + 1, 0

    def learn(self, *batches: Any) -> Any:
        """One step, which is skipped where its gradients are not finite; gives up after many in a row (UserError)."""
        try:
            result, gradient = self.learn_from(*batches)
        except (RuntimeError, MemoryError) as error:
            if not is_lack_of_memory(error):
                raise
            size = self.batches.batch_size
            raise UserError(
                f"the device's memory is too small for train.batch_size {size}; {self.cure_of_memory}"
            ) from error
        self.step, self.batch = self.step + 1, self.batch + self.batches.per_step
        self.skipped.count(gradient)
        if self.step % LOOK_EVERY == 0 or self.step % self.log_interval == 0:
            self._check(result)
        return result

    def _check(self, result: Any) -> None:
        former, (_, in_a_row) = self.skipped.known, self.skipped.read()
        if self.skipped.known > former:
            log.debug("%d steps skipped up to step %d", self.skipped.known - former, self.step)
        if in_a_row >= MOST_BAD_STEPS:
            raise UserError(
                f"the losses have not been finite for {in_a_row} steps ({self.not_finite(result)}); "
                f"{self.cure_of_losses}, and run the same command: it goes on from step {self.saved_step}"
            )


class SkippedSteps:
    """How many steps have changed nothing because their gradients were not finite, counted where they are computed.

    ``known`` is their number when it was last read.
    """

    def __init__(self, device: torch.device):
        self.counts = torch.zeros(2, dtype=torch.long, device=device)  # in all, and in a row just now
        self.known = 0

    def count(self, gradient: Tensor) -> None:
        """Count one step by a number (0-dimensional) that is finite if its gradients were; waits for nothing."""
        bad = (~gradient.isfinite()).long()
        self.counts = torch.stack([self.counts[0] + bad, (self.counts[1] + 1) * bad])

    def read(self) -> tuple[int, int]:
        """How many in all, and how many in a row just now; waits for the device."""
        self.known, in_a_row = self.counts.tolist()
        return self.known, in_a_row
