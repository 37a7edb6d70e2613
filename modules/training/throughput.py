"""How fast a training run goes, what it waits for, and when it will be done."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch

from modules.memory import peak_memory
from modules.progress_lines import expected_end

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Report:
    """The means of the steps since the report before.

    ``data_seconds`` a step waited for its batch, ``compute_seconds`` it learnt; evaluations and checkpoints are in
    neither, but in ``seconds_left`` until the run's last step. ``peak_memory``: GiB so far, None where it is unknown.
    """

    data_seconds: float
    compute_seconds: float
    seconds_left: float
    peak_memory: float | None

    @property
    def steps_per_second(self) -> float:
        return 1 / max(self.data_seconds + self.compute_seconds, 1e-9)

    @property
    def data_share(self) -> float:
        """The part of a step that is waiting for data, 0 to 1."""
        return self.data_seconds * self.steps_per_second

    def scalars(self) -> dict[str, float]:
        """The figures by their TensorBoard tags."""
        figures = {
            "pace/steps_per_second": self.steps_per_second,
            "pace/data_seconds": self.data_seconds,
            "pace/compute_seconds": self.compute_seconds,
            "pace/data_share": self.data_share,
            "pace/hours_left": self.seconds_left / 3600,
        }
        return figures if self.peak_memory is None else {**figures, "pace/peak_memory_gib": self.peak_memory}

    def __str__(self) -> str:
        memory = "" if self.peak_memory is None else f", peak memory {self.peak_memory:.2f} GiB"
        return (
            f"{self.steps_per_second:.3g} steps/s, waiting for data {self.data_share:.1%} of the time{memory}, "
            f"expected end {expected_end(self.seconds_left)}"
        )


class Pace:
    """A stopwatch beside the loop over batches; ``step`` of ``total`` steps are done when it starts.

    A CUDA device computes by itself, some steps behind the program. There a step waits for data only while the device
    has nothing to do; what the program waits besides is counted as computing.
    """

    def __init__(self, step: int, total: int, device: torch.device):
        self.total, self.device = total, device
        self.first_step = self.reported_step = step
        self.began = time.monotonic()
        self.data_seconds = self.compute_seconds = 0.0
        self.waits: deque[Wait] = deque()  # those that a CUDA device had not come to when it was last asked

    def batches(self, loader: Iterable[Batch]) -> Iterator[Batch]:
        """The loader's batches, each waited for on the clock."""
        waiting, on_device = time.monotonic(), self._mark()
        for batch in loader:
            seconds = time.monotonic() - waiting
            if on_device is None:
                self.data_seconds += seconds
            else:
                self.waits.append(Wait(seconds, on_device, self._mark()))
            self.learning = time.monotonic()
            yield batch
            waiting, on_device = time.monotonic(), self._mark()

    def learnt(self) -> None:
        """The step on the batch is done; what else is done before the next one is no part of it."""
        self.compute_seconds += time.monotonic() - self.learning

    def _mark(self) -> torch.cuda.Event | None:
        """The moment at which a CUDA device has done what it was given so far; None on another device."""
        if self.device.type != "cuda":
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _settle(self) -> None:
        """Count the waits that the device has come to by now; waits for nothing."""
        while self.waits and self.waits[0].is_over:
            wait = self.waits.popleft()
            self.data_seconds += wait.idle_seconds
            self.compute_seconds += wait.seconds - wait.idle_seconds

    @property
    def data_share(self) -> float:
        """The part of the time since the last report that was waiting for data, 0 to 1."""
        self._settle()
        return self.data_seconds / max(self.data_seconds + self.compute_seconds, 1e-9)

    def report(self, step: int) -> Report:
        """The figures at ``step``; the means of the next report begin here."""
        self._settle()
        steps = max(step - self.reported_step, 1)
        rate = (time.monotonic() - self.began) / max(step - self.first_step, 1)
        report = Report(
            data_seconds=self.data_seconds / steps,
            compute_seconds=self.compute_seconds / steps,
            seconds_left=rate * max(self.total - step, 0),
            peak_memory=peak_memory(self.device),
        )
        self.reported_step, self.data_seconds, self.compute_seconds = step, 0.0, 0.0
        return report


class Wait(NamedTuple):
    """``seconds`` that the program waited for a batch, and when a CUDA device came to their beginning and end."""

    seconds: float
    beginning: torch.cuda.Event
    end: torch.cuda.Event

    @property
    def is_over(self) -> bool:
        return self.end.query()

    @property
    def idle_seconds(self) -> float:
        """How long the device had nothing to do meanwhile."""
        return self.beginning.elapsed_time(self.end) / 1000
