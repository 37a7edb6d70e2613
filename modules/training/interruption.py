"""Ctrl-C and its kin, for a training run that would rather end with a checkpoint than at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

from modules.console import get_logger
from modules.training.distributed import world_size

log = get_logger("train")

# Ctrl-C, the schedulers' "please end", and a terminal that was closed (Windows has no such signal).
STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class StopSignal:
    """``number`` is the signal that has asked the run to stop, 0 so far."""

    number = 0


@contextlib.contextmanager
def stop_signal() -> Iterator[StopSignal]:
    """Within the block a STOPPING signal leaves a note, so that a step ends and is saved; a second one ends at once.

    What the program was started to ignore (SIGHUP by nohup) it goes on ignoring.

    Of several processes none ends at once: whoever signals them all signals torchrun too, which passes it on and so
    signals twice. It also ends those that take longer than half a minute.
    """
    stop = StopSignal()

    def note(number: int, frame) -> None:
        several = world_size() > 1
        if several and stop.number:
            return
        stop.number = number
        if not several:
            signal.signal(number, former[number])
        log.info("stopping after this step, with a checkpoint%s", "" if several else "; once more ends at once")

    heeded = [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]
    former = {number: signal.signal(number, note) for number in heeded}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def ignore_stop_signals(worker: int) -> None:
    """A loader's worker leaves them to the run, which still needs its batches: they may come to the whole group."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
