"""SIGTERM, SIGHUP and the death of the parent unwind the stack: workers end, and no half-written file stays."""

from __future__ import annotations

import _thread
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import wait

SECONDS_TO_END = 5  # for a worker that was asked to end, before it is killed
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class _Terminated(SystemExit):
    """A signal asks this process to end; ``number`` is which."""

    def __init__(self, number: int):
        super().__init__(1)
        self.number = number


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP unwind the stack; then the process ends by that signal, as without the block.

    What the program was started to ignore (SIGHUP by nohup) it goes on ignoring. Outside the main thread, which alone
    may set handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = _heed()
    try:
        yield
    except _Terminated as end:
        signal.signal(end.number, signal.SIG_DFL)
        signal.raise_signal(end.number)
    finally:
        for number in heeded:
            signal.signal(number, signal.SIG_DFL)


def follow_the_parent() -> None:
    """Make this worker exit by unwinding on SIGTERM and SIGHUP, and when its parent dies in any way.

    Ctrl-C is the parent's to handle: a terminal sends it to the workers too, and here it is ignored.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _heed()
    threading.Thread(target=_watch_the_parent, daemon=True).start()


def _heed() -> list[int]:
    """Raise _Terminated on each of the signals whose handler is the default one; returns these signals."""
    heeded = [number for number in _SIGNALS if signal.getsignal(number) == signal.SIG_DFL]

    def unwind(number: int, frame) -> None:
        for other in heeded:
            signal.signal(other, signal.SIG_IGN)  # a second one must not cut the clean-up short
        raise _Terminated(number)

    for number in heeded:
        signal.signal(number, unwind)
    return heeded


def _watch_the_parent() -> None:
    if hasattr(signal, "pthread_sigmask"):  # delivered to this thread, a signal would not wake the main one
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    wait([multiprocessing.parent_process().sentinel])
    if hasattr(signal, "pthread_kill"):  # which also ends a system call that the main thread waits in
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
    else:
        _thread.interrupt_main(signal.SIGTERM)
    time.sleep(SECONDS_TO_END)  # the main thread may be within a long computation, which no signal interrupts
    os._exit(1)
