"""Run a function in a separate process with limited memory and time."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modules.console import UserError

SECONDS = 30  # enough for linear work; the failures under test take hours or never end


def bounded(function: Callable[..., Any], *arguments: Any, mib: int = 64) -> str:
    """Return the message of the UserError that ``function(*arguments)`` raises, "" if it raises none, with this much
    memory in addition to that of this process. A crash or any other exception fails the test."""
    resource = pytest.importorskip("resource")
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is measured by Linux's /proc")
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        held = next(int(line.split()[1]) for line in open("/proc/self/status", encoding="ascii") if "VmData" in line)
        resource.setrlimit(resource.RLIMIT_DATA, ((held << 10) + (mib << 20),) * 2)
        try:
            function(*arguments)
            said, trace = "", ""
        except UserError as error:
            said, trace = str(error), ""
        except BaseException:
            said, trace = "", traceback.format_exc()
        os.write(send, pickle.dumps((said[:4000], trace[-4000:])))
        os._exit(0)
    os.close(send)
    with open(receive, "rb") as pipe:
        data = pipe.read()
    status = os.waitpid(child, 0)[1]
    assert status == 0, f"the process ended with status {status}"
    said, trace = pickle.loads(data)
    assert not trace, trace
    return said
