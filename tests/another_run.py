"""Another process that trains in a folder, as far as the folder's lock can tell."""

import contextlib
import multiprocessing

import pytest

from modules import run_lock

needs_locks = pytest.mark.skipif(run_lock.fcntl is None, reason="this system has no such locks")


@contextlib.contextmanager
def another_run(folder):
    """It has the folder until it is killed: at the block's end, or before."""
    context = multiprocessing.get_context("fork")
    there = context.Event()

    def hold():
        with run_lock.sole_run(folder):
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
