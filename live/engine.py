"""The live conversion with a sound card: a worker thread, and recovery of a lost device."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from live.delays import Delays
from live.scheduler import TOO_SLOW
from live.session import BUFFER, Converter, Session, calibrate
from modules.console import UserError, explain, get_logger

log = get_logger("live")

RETRY = 1.0  # seconds between attempts to open a lost device
DEAD = 2.0  # seconds without a buffer after which a device is lost


class OpenStream(Protocol):
    """An open stream, as of ``SoundCard.open``."""

    rate: int
    buffer: int
    delay: float

    def start(self) -> None: ...

    def close(self) -> None: ...


class Card(Protocol):
    """What opens streams; a SoundCard, or a stand-in in a test."""

    def refresh(self) -> None: ...

    def open(
        self, rate: int, buffer_seconds: float, exchange: Callable[[np.ndarray], np.ndarray], on_end: Callable
    ) -> OpenStream: ...


@dataclass(frozen=True)
class Status:
    """What a window shows.

    Attributes:
        level: of the input, RMS.
        delays: None before the start.
        underruns, overruns: since the start.
        usual, longest: seconds of computing a block that is not silent, the median and the 99th percentile.
        notice: a sentence about a trouble that may pass, or empty.
        error: the sentence that ended the conversion, or empty.
    """

    level: float = 0.0
    delays: Delays | None = None
    underruns: int = 0
    overruns: int = 0
    usual: float = 0.0
    longest: float = 0.0
    notice: str = ""
    error: str = ""


class Engine:
    """Converts between the input and the output of a sound card until it is stopped.

    ``run`` starts the worker thread, which calls ``step``. A lost device is opened again as soon as it is there; the
    conversion then begins anew.

    Args:
        card: opens the stream.
        converter: converts the blocks.
        fixed_delay: total delay in seconds, or None, as of Session.
        clock: returns seconds.

    Raises UserError if the devices cannot be opened, or the fixed delay is too short.
    """

    def __init__(
        self,
        card: Card,
        converter: Converter,
        fixed_delay: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.card, self.fixed_delay, self.clock = card, fixed_delay, clock
        self.status = Status()
        self._durations = calibrate(converter, clock)
        self._wake, self._thread, self._stopping = threading.Event(), None, False
        self._stream: OpenStream | None = None
        self._session: Session | None = None
        self._counted = 0, 0  # underruns and overruns of sessions before a device was lost
        self._lost, self._heard, self._retry_at = False, 0.0, 0.0
        self._open(converter)

    def run(self) -> None:
        """Start the worker thread."""
        self._thread = threading.Thread(target=self._work, name="live conversion", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the worker and close the devices; further calls have no effect."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._close()

    def replace(self, converter: Converter) -> None:
        """Convert with another model from the next block on. Raises ValueError if it has other blocks or rates."""
        self._session.replace(converter)

    def step(self) -> bool:
        """Convert a block, or open a lost device; returns whether there was a block."""
        if self._stream is not None and self.clock() - self._heard > DEAD:
            self._lost = True
        if self._lost:
            self._recover()
            return False
        session = self._session
        task = session.take()
        if task is not None:
            start = self.clock()
            audio = session.convert(task)
            session.give(task, audio, self.clock() - start)
        self._report()
        return task is not None

    def _work(self) -> None:
        while not self._stopping:
            try:
                if not self.step():
                    self._wake.wait(0.1)
                    self._wake.clear()
            except Exception as error:  # the thread's last words are for the window
                sentence = explain(error)
                if sentence is None:
                    log.error("the live conversion failed because of a bug in the program:", exc_info=error)
                    sentence = f"the conversion failed ({type(error).__name__}: {error})"
                self._stopping = True
                self._close()  # before anyone learns that no stream is open
                self.status = replace(self.status, error=sentence)
        self._close()

    def _open(self, converter: Converter) -> None:
        """Open the devices with a new session."""
        stream = self.card.open(converter.rate, BUFFER, self._exchange, self._end)
        try:
            if self._session is not None:
                converter = self._session.latest  # another one may have been chosen while the devices were opened
            converter.reset()
            self._session = Session(
                converter, stream.rate, stream.buffer, self._durations, stream.delay, self.fixed_delay
            )
            self._stream, self._lost, self._heard = stream, False, self.clock()
            stream.start()
        except BaseException:
            stream.close()
            raise

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(Exception):  # the device may be gone
                stream.close()

    def _exchange(self, captured: np.ndarray) -> np.ndarray:
        """Serve the device's thread."""
        self._heard = self.clock()
        audio = self._session.exchange(captured)
        if self._session.scheduler.has_block:
            self._wake.set()
        return audio

    def _end(self) -> None:
        """Note that the stream ended; the devices' thread calls it."""
        if self._stream is not None:
            self._lost = True
            self._wake.set()

    def _recover(self) -> None:
        """Try to open a lost device, once in a while."""
        if self._stream is not None:
            self._close()
            scheduler = self._session.scheduler
            self._counted = self._counted[0] + scheduler.underruns, self._counted[1] + scheduler.overruns
            self._retry_at = 0.0
            log.warning("the sound device is lost; the conversion continues when it is back")
        if self.clock() < self._retry_at:
            return
        try:
            self.card.refresh()
            self._open(self._session.latest)
            self.status = replace(self.status, notice="")
            log.info("the sound device is back")
        except UserError as error:
            self._retry_at = self.clock() + RETRY
            self.status = replace(self.status, level=0.0, notice=f"the sound device is lost: {error}")

    def _report(self) -> None:
        session = self._session
        scheduler, computed = session.scheduler, session.scheduler.computed
        self.status = Status(
            session.level,
            session.delays(),
            self._counted[0] + scheduler.underruns,
            self._counted[1] + scheduler.overruns,
            computed.percentile(50),
            computed.percentile(99),
            TOO_SLOW if scheduler.is_too_slow else "",
        )
