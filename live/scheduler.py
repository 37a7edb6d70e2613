"""The scheduler between the sound card and the converter: it bounds the delay and counts what is lost.

Time is counted in samples of the stream, so the same code runs with a sound card and in a simulation. The output is the
converted input, ``delay`` samples later, at every moment: sound that is not ready in time is silence, between two
fades, and never played later. So a stall leaves no delay behind: the blocks whose time has passed are dropped, and the
first one that can be ready in time is the next to be converted.

           captured                                          position = captured - delay
    input  |--------------- block n ---------------|   ...   output |---- block n - 1 ----|---- block n ----|
                                                   take()    give() before its first sample is due

If blocks are late again and again, the reserve for computing grows, at most to the length of a block; it returns when
it was not needed for SETTLED blocks. A fixed delay never changes.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from live.delays import MARGIN
from live.durations import Durations
from live.ring import Ring

FADE = 0.01  # seconds
BACKLOG = 5.0  # seconds of input that are kept for a worker that stalls
SETTLED = 40  # blocks
TOO_SLOW = "this computer is too slow for these settings; choose a longer block, or a faster F0 predictor"


@dataclass(frozen=True)
class Task:
    """A block to convert, and the sound that was dropped before it, whole blocks of it."""

    number: int
    sound: np.ndarray
    skipped: np.ndarray


class Scheduler:
    """Gives blocks of captured sound to a worker, and plays what it returns. All methods may be called by any thread.

    Args:
        rate: Hz.
        block: samples of a block.
        port: the most samples by which the device's side may be ahead or behind: its buffer and resampling.
        reserve: seconds for computing a block.
        fixed: the delay never changes.

    Attributes:
        underruns: gaps in the output, each between two fades.
        overruns: blocks of input that were dropped.
        durations: seconds in which the worker converted the newest blocks.
        computed: the same without blocks whose output is silence, for which nothing is computed.
    """

    def __init__(self, rate: int, block: int, port: int, reserve: float, fixed: bool = False):
        self.rate, self.block, self.port, self.fixed = rate, block, port, fixed
        self.fade = round(FADE * rate)
        self.least = self.reserve = round(reserve * rate)  # samples
        self.underruns = self.overruns = 0
        self.durations, self.computed = Durations(), Durations()
        self._lock = threading.Lock()
        self._captured = self._ready = 0  # positions after the newest sound, of the input and of the output
        self._position = -(block + port + self.reserve)  # of the next sample to play
        self._next = 0  # number of the next block to take
        self._gain, self._starved = 1.0, False
        self._change = 0  # samples by which the delay is still to grow (in a gap) or to shrink
        self._late = self._changed = -SETTLED  # numbers of the last late block, and of the last change of the reserve
        whole = round(BACKLOG * rate) // block + 2
        self._input, self._output = Ring(whole * block), Ring(4 * block + 2 * (port + self.reserve) + 4 * self.fade)

    @property
    def delay(self) -> int:
        """Samples between the input and the output; a change of the reserve takes effect in the next gap or block."""
        with self._lock:
            return self.block + self.port + self.reserve - self._change

    @property
    def is_too_slow(self) -> bool:
        """Whether the median block that is computed takes longer than it lasts."""
        return self.computed.percentile(50) * self.rate > self.block

    # -- the device's side --------------------------------------------------------------------------------------------

    def capture(self, sound: np.ndarray) -> None:
        """Add captured sound (n,)."""
        with self._lock:
            self._input.write(self._captured, sound)
            self._captured += len(sound)

    def play(self, count: int) -> np.ndarray:
        """Return the next ``count`` samples of the output, (count,) float32."""
        with self._lock:
            steps = np.arange(1, count + 1, dtype=np.float32)
            left = self._ready - self._position - steps + 1  # samples that are ready, from each one on
            gain = np.minimum(self._gain + steps / self.fade, left / self.fade).clip(0, 1)
            audio = self._output.read(self._position, self._position + count) * gain
            self._count_underrun(left[-1] <= 0)
            self._gain = float(gain[-1])
            self._position += count
            if self._change > 0 and self._starved:
                self._move(-min(self._change, count))
            elif self._change < 0 and left[-1] > self.fade - self._change:
                audio = self._cross_fade(audio, self._position - count - self._change)
                self._move(-self._change)
            return audio

    def _count_underrun(self, starved: bool) -> None:
        self.underruns += starved and not self._starved
        self._starved = starved

    def _cross_fade(self, audio: np.ndarray, other: int) -> np.ndarray:
        """Fade from ``audio`` to the output from position ``other`` on."""
        share = np.minimum(np.arange(1, len(audio) + 1, dtype=np.float32) / min(self.fade, len(audio)), 1)
        return audio * (1 - share) + self._output.read(other, other + len(audio)) * share

    def _move(self, samples: int) -> None:
        self._position += samples
        self._change += samples

    # -- the worker's side --------------------------------------------------------------------------------------------

    @property
    def has_block(self) -> bool:
        """Whether a block is complete and not yet taken."""
        return self._next < self._captured // self.block

    def take(self) -> Task | None:
        """Return the next block that can be ready in time, or the newest if none can; None if no block is complete.

        Drops the blocks before it.
        """
        with self._lock:
            if not self.has_block:
                return None
            whole = self._captured // self.block
            done = self._position + round(self.computed.percentile(50) * self.rate)
            number = max(self._next, min(done // self.block, whole - 1))
            self.overruns += number - self._next
            first, oldest = self._next * self.block, self._captured - self._input.length
            skipped = self._input.read(max(first, -(-oldest // self.block) * self.block), number * self.block)
            sound = self._input.read(number * self.block, (number + 1) * self.block)
            self._next = number + 1
            return Task(number, sound, skipped)

    def give(self, task: Task, audio: np.ndarray, seconds: float) -> None:
        """Give the converted ``audio`` (block,) of a task, which took ``seconds``."""
        with self._lock:
            self.durations.add(seconds)
            if audio.any():
                self.computed.add(seconds)
            first = task.number * self.block
            is_late = first < self._position
            if first > self._ready:
                audio = audio.copy()
                self._join(first, audio)
            self._output.write(first, audio)
            self._ready = first + self.block
            if not self.fixed:
                self._adapt(task.number, is_late)

    def _join(self, first: int, audio: np.ndarray) -> None:
        """Fade out what is ready, fade in ``audio``, and fill the gap between them with zeros."""
        audio[: self.fade] *= np.linspace(0, 1, min(self.fade, len(audio)), dtype=np.float32)
        begin = min(max(self._ready - self.fade, self._position), self._ready)
        tail = self._output.read(begin, self._ready)
        self._output.write(begin, tail * np.linspace(1, 0, len(tail), dtype=np.float32))
        gap = max(self._ready, self._position)
        self._output.write(gap, np.zeros(max(0, first - gap), np.float32))

    def _adapt(self, number: int, is_late: bool) -> None:
        """Let the reserve grow if this block and a recent one were late, and return when it is not needed.

        Blocks that took twice the length of a block are stalls, which no reserve hides.
        """
        recent = self.durations.newest(SETTLED)
        longest = recent[recent * self.rate < 2 * self.block].max(initial=0)
        wanted = round((longest + MARGIN) * self.rate)
        wanted = max(self.least, min(wanted, self.block + round(MARGIN * self.rate)))
        late_again = is_late and number - self._late < SETTLED
        if is_late:
            self._late = number
        if late_again and wanted > self.reserve or wanted < self.reserve and number - self._changed >= SETTLED:
            self._change += wanted - self.reserve
            self.reserve, self._changed = wanted, number
