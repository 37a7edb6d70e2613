"""End a training run with a checkpoint on Ctrl-C and similar signals."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

from modules.console import get_logger
from modules.training.distributed import world_size

log = get_logger("train")

# Ctrl-C, a scheduler's request to end, and a closed terminal (Windows has no SIGHUP).
STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class StopSignal:
    """``number`` is the signal received, 0 if none."""

    number = 0


@contextlib.contextmanager
def stop_signal() -> Iterator[StopSignal]:
    """Let the first STOPPING signal in the block only set ``number``; a second one has its default effect.

    Signals that the program was started to ignore (SIGHUP by nohup) stay ignored.

    With several processes a second signal is ignored too: signalling all of them also signals torchrun, which forwards
    it and so signals twice. torchrun also ends processes that take longer than half a minute.
    """
    stop = StopSignal()

    def on_signal(number: int, frame) -> None:
        several = world_size() > 1
        if several and stop.number:
            return
        stop.number = number
        if not several:
            signal.signal(number, former[number])
        log.info("stopping after this step, with a checkpoint%s", "" if several else "; a second signal stops at once")

    handled = [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]
    former = {number: signal.signal(number, on_signal) for number in handled}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def ignore_stop_signals(worker: int) -> None:
    """Ignore stop signals in a loader's worker: they may go to the whole process group, but its batches are needed."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
