"""Worker processes that load their models once and then process one item after the other."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any, Protocol

from modules.console import UserError, option, set_up_logging
from preparation.termination import SECONDS_TO_END, exit_with_parent


class Job(Protocol):
    """The work on one item after the other. It is pickled and sent to each worker before ``set_up``."""

    def set_up(self, rank: int, workers: int) -> None:
        """Load the models; ``rank`` counts the workers from 0. A UserError here ends the whole run."""

    def __call__(self, item: Any) -> Any:
        """Return the result of one item. An error of the item is part of the result, not an exception."""

    def worker_died(self, item: Any, reason: str) -> Any:
        """Return the result of an item whose worker process died."""


def run_job(job: Job, items: Sequence[Any], processes: int) -> Iterator[Any]:
    """Yield the result of each item, in the order of completion.

    One process means the calling process. If the caller stops early, for instance by Ctrl-C, the workers exit and
    delete their temporary files. Raises UserError if the job cannot be set up.
    """
    processes = min(processes, len(items))
    if processes > 1:
        yield from _run_in_workers(job, items, processes)
    elif items:
        job.set_up(0, 1)
        yield from map(job, items)


def worker_count(wanted: int) -> int:
    """Return the number of workers for ``num_processes``; 0 means the number of CPUs. Raises UserError if negative."""
    if wanted < 0:
        raise UserError(f"{option('num_processes')} is {wanted}; it must be 0 (one for each CPU) or more")
    return wanted or cpu_count()


def cpu_count() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_in_workers(job: Job, items: Sequence[Any], processes: int) -> Iterator[Any]:
    waiting = deque(items)
    workers: list[_Worker] = []
    try:
        for rank in range(processes):
            workers.append(_Worker(job, rank, processes))
        while workers:
            ready = wait([worker.pipe for worker in workers])
            for worker in [worker for worker in workers if worker.pipe in ready]:
                kind, value = worker.receive()
                if kind == "refused":
                    raise UserError(value)
                if kind == "done":
                    yield value
                if kind == "died":
                    yield job.worker_died(worker.item, value)
                    workers.remove(worker)
                    _end([worker])
                    worker = _Worker(job, worker.rank, processes)
                    workers.append(worker)
                elif waiting:
                    worker.send(waiting.popleft())
                else:
                    workers.remove(worker)
                    _end([worker])
    finally:
        _end(workers)


class _Worker:
    """The parent's end of one worker process."""

    def __init__(self, job: Job, rank: int, workers: int):
        context = multiprocessing.get_context("spawn")
        self.rank = rank
        self.item = None
        self.set_up = False
        self.pipe, worker_pipe = context.Pipe()
        self.process = context.Process(target=_work, args=(worker_pipe, job, rank, workers), daemon=True)
        self.process.start()
        worker_pipe.close()

    def send(self, item: Any) -> None:
        self.item = item
        with contextlib.suppress(OSError):  # receive() detects a worker that has died
            self.pipe.send(item)

    def receive(self) -> tuple[str, Any]:
        """Return ("ready", None), ("refused", sentence), ("done", result) or ("died", reason)."""
        try:
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(SECONDS_TO_END)
            reason = f"a worker process died (exit code {self.process.exitcode}; memory may have run out)"
            if self.set_up:
                return "died", reason
            return "refused", f"{reason} while it loaded; try {option('num_processes', 1)}"
        self.set_up = True
        return kind, value


def _end(workers: Sequence[_Worker]) -> None:
    """Terminate all workers, wait for them together, and kill those that take longer than SECONDS_TO_END."""
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + SECONDS_TO_END
    for worker in workers:
        worker.process.join(max(0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.pipe.close()


def _work(pipe: Any, job: Job, rank: int, workers: int) -> None:
    """Run the main loop of a worker process until the parent terminates it or dies."""
    exit_with_parent()
    set_up_logging()
    try:
        job.set_up(rank, workers)
    except UserError as error:
        pipe.send(("refused", str(error)))
        return
    pipe.send(("ready", None))
    with contextlib.suppress(EOFError, OSError):  # the parent has died
        while True:
            pipe.send(("done", job(pipe.recv())))
