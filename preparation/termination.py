"""Raise an exception on SIGTERM, SIGHUP and the parent's death, so that workers exit and delete temporary files."""

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

SECONDS_TO_END = 5  # that a worker gets after SIGTERM, before it is killed
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class _Terminated(SystemExit):
    """A signal was received; ``number`` is its number."""

    def __init__(self, number: int):
        super().__init__(1)
        self.number = number


@contextlib.contextmanager
def unwind_on_signals() -> Iterator[None]:
    """Unwind the stack on SIGTERM and SIGHUP within the block; then the process terminates by that signal.

    A signal that is ignored at the start (SIGHUP under nohup) stays ignored. Does nothing outside the main thread,
    because only the main thread can set handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = _install_handlers()
    try:
        yield
    except _Terminated as end:
        signal.signal(end.number, signal.SIG_DFL)
        signal.raise_signal(end.number)
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


def exit_with_parent() -> None:
    """Make this worker unwind and exit on SIGTERM, on SIGHUP, and when its parent dies.

    Ctrl-C is ignored here: a terminal sends it to the workers too, but the parent handles it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _install_handlers()
    threading.Thread(target=_watch_parent, daemon=True).start()


def _install_handlers() -> list[int]:
    """Make each signal with the default handler raise _Terminated; returns these signals."""
    handled = [number for number in _SIGNALS if signal.getsignal(number) == signal.SIG_DFL]

    def unwind(number: int, frame) -> None:
        for other in handled:
            signal.signal(other, signal.SIG_IGN)  # a second signal must not interrupt the clean-up
        raise _Terminated(number)

    for number in handled:
        signal.signal(number, unwind)
    return handled


def _watch_parent() -> None:
    if hasattr(signal, "pthread_sigmask"):  # a signal must go to the main thread to wake it
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    wait([multiprocessing.parent_process().sentinel])
    if hasattr(signal, "pthread_kill"):  # which also interrupts a blocking system call
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
    else:
        _thread.interrupt_main(signal.SIGTERM)
    time.sleep(SECONDS_TO_END)  # the main thread may be in a long computation that no signal interrupts
    os._exit(1)
