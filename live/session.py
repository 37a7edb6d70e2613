"""A live conversion: a converter, a scheduler, and the formats of a device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

from live.delays import MARGIN, Delays, reserve_for
from live.durations import Durations
from live.rates import RateConverter
from live.scheduler import FADE, Scheduler, Task
from modules.console import UserError

BUFFER = 0.01  # seconds of a device's buffer
CALIBRATION = 12  # blocks that are converted before the start to measure how long that takes


class Converter(Protocol):
    """What converts blocks; a StreamingConverter, or a stand-in in a test.

    ``rate`` in Hz, ``block`` and ``look_ahead`` in samples.
    """

    rate: int
    block: int
    look_ahead: int

    def __call__(self, block: np.ndarray) -> np.ndarray: ...

    def skip(self, sound: np.ndarray) -> None: ...

    def recent_sound(self) -> np.ndarray: ...

    def reset(self) -> None: ...


class Session:
    """Connects a device to a converter. The device calls ``exchange``; a worker calls ``take``, ``convert`` and
    ``give``.

    Args:
        converter: converts the blocks; it must not have heard any sound.
        rate: of the device, Hz.
        buffer: samples of the device's buffer.
        durations: measured times of converting a block, see ``calibrate``.
        device_delay: seconds of the device.
        fixed_delay: total delay in seconds that never changes; None for the shortest, which adapts.

    Raises UserError if the fixed delay is too short.
    """

    def __init__(
        self,
        converter: Converter,
        rate: int,
        buffer: int,
        durations: Durations,
        device_delay: float = 0.0,
        fixed_delay: float | None = None,
    ):
        self.converter, self.device_delay = converter, device_delay
        self.level = 0.0  # of the newest input, RMS
        self._new: Converter | None = None
        self._fades_in = False
        to_model, to_device = RateConverter(rate, converter.rate), RateConverter(converter.rate, rate)
        self._to_model, self._to_device = to_model, to_device
        self._output = np.zeros(0, np.float32)  # at the device's rate, not yet played
        port = math.ceil((buffer + to_model.lag) * converter.rate / rate) + to_device.lead
        reserve = durations.percentile(99) + MARGIN
        if fixed_delay is not None:
            others = Delays((converter.block + port) / converter.rate, self.look_ahead, 0, device_delay)
            reserve = reserve_for(fixed_delay, others, reserve)
        self.scheduler = Scheduler(converter.rate, converter.block, port, reserve, fixed_delay is not None)

    @property
    def look_ahead(self) -> float:
        """The converter's look-ahead in seconds."""
        return self.converter.look_ahead / self.converter.rate

    @property
    def latest(self) -> Converter:
        """The converter of the next block: the one of ``replace`` if it has not begun yet."""
        return self._new or self.converter

    def delays(self) -> Delays:
        """Return the present delays."""
        scheduler = self.scheduler
        waiting = scheduler.block + scheduler.port
        compute = scheduler.delay - waiting
        return Delays(waiting / scheduler.rate, self.look_ahead, compute / scheduler.rate, self.device_delay)

    def exchange(self, sound: np.ndarray) -> np.ndarray:
        """Take a buffer of the device's input (n,) or (n, channels), and return one of its output, (n,) float32."""
        mono = sound if sound.ndim == 1 else sound.mean(axis=1)
        self.level = math.sqrt(float(np.dot(mono, mono)) / max(1, len(mono)))
        self.scheduler.capture(self._to_model(mono))
        while len(self._output) < len(mono):
            missing = (len(mono) - len(self._output)) * self._to_device.source / self._to_device.target
            played = self._to_device(self.scheduler.play(math.ceil(missing)))
            self._output = np.concatenate((self._output, played))
        audio, self._output = self._output[: len(mono)], self._output[len(mono) :]
        return audio

    def take(self) -> Task | None:
        """Return the next block to convert, None if there is none."""
        return self.scheduler.take()

    def convert(self, task: Task) -> np.ndarray:
        """Convert the block of a task. Raises UserError if the result is not finite."""
        converter = self.converter
        if len(task.skipped):
            converter.skip(task.skipped)
        audio = converter(task.sound)
        if not np.isfinite(audio).all():
            raise UserError("the model gives sound that is not finite; it is damaged, use an earlier checkpoint")
        rise = np.minimum(np.arange(len(audio), dtype=np.float32) / round(FADE * converter.rate), 1)
        if self._fades_in:
            audio, self._fades_in = audio * rise, False
        new, self._new = self._new, None
        if new is not None:
            audio, self._fades_in = audio * rise[::-1], True
            new.skip(converter.recent_sound())
            self.converter = new
        return audio

    def give(self, task: Task, audio: np.ndarray, seconds: float) -> None:
        """Give the audio of a task, which took ``seconds``."""
        self.scheduler.give(task, audio, seconds)

    def replace(self, converter: Converter) -> None:
        """Convert with another converter from the next block on: the old one fades out, and the new one in.

        Raises ValueError if it has other blocks, another rate or another look-ahead.
        """
        old = self.converter
        if (converter.rate, converter.block, converter.look_ahead) != (old.rate, old.block, old.look_ahead):
            raise ValueError("the new converter has other blocks; start a new session")
        self._new = converter


def calibrate(converter: Converter, clock: Callable[[], float] = time.perf_counter) -> Durations:
    """Measure how long the converter needs for a block that is not silent; ``clock`` returns seconds.

    The sound is noise at 0 dB, above the level of silence that any setting allows, and fills the look-ahead before the
    first block, so that every block is computed. The converter is reset afterwards.
    """
    durations, noise = Durations(), np.random.default_rng(0)
    blocks = math.ceil(converter.look_ahead / converter.block) + 1
    converter.skip(noise.standard_normal(blocks * converter.block).astype(np.float32))
    for count in range(CALIBRATION + 1):
        block = noise.standard_normal(converter.block).astype(np.float32)
        start = clock()
        converter(block)
        if count:  # the first one allocates memory
            durations.add(clock() - start)
    converter.reset()
    return durations
