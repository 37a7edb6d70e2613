"""Worker processes that each set up once, and then take one clip after the other."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from modules.console import UserError


class Job(Protocol):
    """What the workers do. It travels to them pickled, before ``set_up``."""

    def set_up(self, rank: int, workers: int) -> None:
        """Load what each worker needs once; ``rank`` counts the workers from 0. A UserError here ends the whole run."""

    def __call__(self, item: Any) -> Any:
        """The result of one item, itself picklable. It reports what is wrong with an item in its result."""

    def lost(self, item: Any, reason: str) -> Any:
        """The result of an item whose worker died over it."""


def run(job: Job, items: Sequence[Any], processes: int) -> Iterator[Any]:
    """Yield ``job(item)`` of each item, in the order in which they are done.

    With one process the work is done in this one. When the caller stops early, by Ctrl-C for instance, the workers are
    ended and leave no half-written file. Raises UserError when the job cannot be set up, or workers die one after the
    other.
    """
    processes = min(processes, len(items))
    if processes > 1:
        yield from _run_apart(job, items, processes)
    elif items:
        job.set_up(0, 1)
        yield from map(job, items)


def worker_count(wanted: int) -> int:
    """The number of worker processes that ``--num_processes`` asks for; 0 means as many as this process may use CPUs.

    Raises UserError when it is negative.
    """
    if wanted < 0:
        raise UserError(f"--num_processes is {wanted}; it must be 0 (all CPUs) or more")
    return wanted or cpu_count()


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_apart(job: Job, items: Sequence[Any], processes: int) -> Iterator[Any]:
    waiting = deque(items)
    workers: dict[Connection, _Worker] = {}
    died_idle = 0
    try:
        for rank in range(processes):
            worker = _Worker(job, rank, processes)
            workers[worker.pipe] = worker
        while workers:
            for pipe in wait(list(workers)):
                worker = workers[pipe]
                try:
                    kind, value = pipe.recv()
                except (EOFError, OSError):
                    del workers[pipe]
                    reason = f"its worker process died ({worker.end()})"
                    if worker.item is None:
                        raise UserError(f"a worker process died while it was set up ({worker.end()}); use fewer") from None
                    yield job.lost(worker.item, reason)
                    if waiting:
                        worker = _Worker(job, worker.rank, processes)
                        workers[worker.pipe] = worker
                    continue
                if kind == "refused":
                    raise UserError(value)
                if kind == "result":
                    yield value
                if not worker.take(waiting):
                    del workers[pipe]
    finally:
        for worker in workers.values():
            worker.process.terminate()
        for worker in workers.values():
            worker.end()
