"""The throughput of a training run: steps per second, time spent waiting for data, and the expected end."""

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
class ThroughputReport:
    """Means per step since the previous report.

    ``data_seconds``: waiting for the batch. ``compute_seconds``: computing. Validations and checkpoints are in neither;
    they are in ``seconds_left``, the time until the run's last step. ``peak_memory``: GiB so far, None if unknown.
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
        """The share of a step that is spent waiting for data, 0 to 1."""
        return self.data_seconds * self.steps_per_second

    def scalars(self) -> dict[str, float]:
        """Return the figures by TensorBoard tag."""
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


class ThroughputMeter:
    """Measures the loop over batches; ``step`` of ``total`` steps are done when it starts.

    A CUDA device computes asynchronously, some steps behind the program. There only the time in which the device is
    idle counts as waiting for data; the rest of the program's waiting counts as computing.
    """

    def __init__(self, step: int, total: int, device: torch.device):
        self.total, self.device = total, device
        self.first_step = self.reported_step = step
        self.began = time.monotonic()
        self.data_seconds = self.compute_seconds = 0.0
        self.waits: deque[Wait] = deque()  # those that a CUDA device has not passed yet

    def batches(self, loader: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the loader's batches and measure the wait for each."""
        waiting, on_device = time.monotonic(), self._record_event()
        for batch in loader:
            seconds = time.monotonic() - waiting
            if on_device is None:
                self.data_seconds += seconds
            else:
                self.waits.append(Wait(seconds, on_device, self._record_event()))
            self.step_began = time.monotonic()
            yield batch
            waiting, on_device = time.monotonic(), self._record_event()

    def step_done(self) -> None:
        """Stop the clock of the step; what follows until the next batch is not counted."""
        self.compute_seconds += time.monotonic() - self.step_began

    def _record_event(self) -> torch.cuda.Event | None:
        """Record an event on a CUDA device after its work so far and return it; None on other devices."""
        if self.device.type != "cuda":
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _count_passed_waits(self) -> None:
        """Count the waits that the device has passed by now; does not block."""
        while self.waits and self.waits[0].is_over:
            wait = self.waits.popleft()
            self.data_seconds += wait.idle_seconds
            self.compute_seconds += wait.seconds - wait.idle_seconds

    @property
    def data_share(self) -> float:
        """The share of the time since the last report spent waiting for data, 0 to 1."""
        self._count_passed_waits()
        return self.data_seconds / max(self.data_seconds + self.compute_seconds, 1e-9)

    def report(self, step: int) -> ThroughputReport:
        """Return the figures at ``step``; the next report's means start here."""
        self._count_passed_waits()
        steps = max(step - self.reported_step, 1)
        rate = (time.monotonic() - self.began) / max(step - self.first_step, 1)
        report = ThroughputReport(
            data_seconds=self.data_seconds / steps,
            compute_seconds=self.compute_seconds / steps,
            seconds_left=rate * max(self.total - step, 0),
            peak_memory=peak_memory(self.device),
        )
        self.reported_step, self.data_seconds, self.compute_seconds = step, 0.0, 0.0
        return report


class Wait(NamedTuple):
    """A wait of ``seconds`` for a batch, and CUDA events at its beginning and end."""

    seconds: float
    beginning: torch.cuda.Event
    end: torch.cuda.Event

    @property
    def is_over(self) -> bool:
        return self.end.query()

    @property
    def idle_seconds(self) -> float:
        """The seconds for which the device was idle during the wait."""
        return self.beginning.elapsed_time(self.end) / 1000
