"""A simulated device and worker in virtual time: the same session as with a sound card, the same every time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from live.scheduler import Task
from live.session import Session


class Simulation:
    """Runs a session as a device of ``rate`` Hz with buffers of ``buffer`` samples would, without waiting.

    Args:
        session: the session, made for this rate and buffer.
        duration: called with a block's number and the seconds that its conversion took; returns the seconds that it
            takes in virtual time. The default lets virtual time be measured time.
    """

    def __init__(
        self,
        session: Session,
        rate: int,
        buffer: int,
        duration: Callable[[int, float], float] = lambda number, measured: measured,
    ):
        self.session, self.rate, self.buffer, self.duration = session, rate, buffer, duration
        self.time = 0.0  # seconds
        self._task: Task | None = None  # in work
        self._result, self._seconds, self._done_at = np.zeros(0, np.float32), 0.0, 0.0

    def run(self, sound: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the device's output, buffer by buffer, while it captures ``sound`` (L,) or (L, channels).

        The last buffer is shorter if L is not a multiple of the buffer.
        """
        for first in range(0, len(sound), self.buffer):
            captured = sound[first : first + self.buffer]
            self.time += len(captured) / self.rate
            self._work_until(self.time)
            yield self.session.exchange(captured)
            if self._task is None:
                self._begin(self.time)

    def _work_until(self, moment: float) -> None:
        """Finish the tasks that are done by a moment; each one begins when the one before it is done."""
        while self._task is not None and self._done_at <= moment:
            self.session.give(self._task, self._result, self._seconds)
            self._begin(self._done_at)

    def _begin(self, moment: float) -> None:
        self._task = self.session.take()
        if self._task is not None:
            start = time.perf_counter()
            self._result = self.session.convert(self._task)
            self._seconds = self.duration(self._task.number, time.perf_counter() - start)
            self._done_at = moment + self._seconds
