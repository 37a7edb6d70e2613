"""A script in a process of its own that starts in a fraction of a second.

A server, started once, has imported PyTorch and forks each process (Windows, which cannot fork, starts an interpreter).
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[1]
FORKS = "forkserver" in multiprocessing.get_all_start_methods()
CONTEXT = multiprocessing.get_context("forkserver" if FORKS else "spawn")
SERVER_SETTINGS = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore:resource_tracker:UserWarning"}
IMPORTED = [
    *("train", "vits.training", "diffusion.training", "preprocess_hubert_f0", "preparation.features"),
    "torch.utils.tensorboard",
    *("torch._dynamo", "matplotlib.figure"),  # otherwise imported with the first optimizer and the first picture
]


class ScriptProcess:
    """Runs ``main(arguments)`` of a root script in the current folder; what it prints is appended to ``errors``."""

    def __init__(self, script: str, *arguments: str, errors: Path):
        if FORKS:
            CONTEXT.set_forkserver_preload(IMPORTED)
            # A killed process leaves semaphores, which are cleaned up at the end and need no warning.
            with mock.patch.dict(os.environ, **SERVER_SETTINGS):
                forkserver.ensure_running()
        self.errors = errors
        self._process = CONTEXT.Process(target=_run, args=(script.removesuffix(".py"), arguments, errors))
        self._process.start()

    def poll(self) -> int | None:
        """The exit code, minus the signal's number after a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end; returns the exit code."""
        self._process.join(timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def read_errors(self) -> str:
        return self.errors.read_text(encoding="utf-8") if self.errors.exists() else ""


def _run(script: str, arguments: tuple[str, ...], errors: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which the server ignores
    with open(errors, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = [script, *arguments]
    sys.exit(importlib.import_module(script).main(arguments))
