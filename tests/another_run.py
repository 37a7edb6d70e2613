"""Another process that trains in a folder, as far as the folder's lock can tell."""

import contextlib
import multiprocessing
import os
import time

import pytest

from modules.training.run_lock import exclusive_run

needs_locks = pytest.mark.skipif(os.name == "nt", reason="the other run is a forked process")


@contextlib.contextmanager
def another_run(folder, workers_pid=None):
    """It has the folder until it is killed: at the block's end, or before.

    With ``workers_pid`` it forks a worker that outlives it, and writes its number into the file of that path.
    """
    context = multiprocessing.get_context("fork")
    there = context.Event()

    def hold():
        with exclusive_run(folder):
            if workers_pid is not None:
                worker = os.fork()
                if worker == 0:
                    time.sleep(60)
                    os._exit(0)
                workers_pid.write_text(str(worker), encoding="utf-8")
            there.set()
            context.Event().wait()

    process = context.Process(target=hold)
    process.start()
    assert there.wait(60)
    try:
        yield process
    finally:
        process.kill()
        process.join()
