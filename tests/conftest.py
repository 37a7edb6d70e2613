"""What all tests share. Before anything else is imported, each test process takes its share of the cores."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

from tests.script_process import ScriptProcess

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # not in the process that starts them: they inherit it
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))


# The files that take longest begin, so that none is left for one process at the end.
LONGEST = (
    *("test_parity.py", "test_same_sound.py", "test_training.py", "test_variants_end_to_end.py", "test_distributed.py"),
    *("test_inference_main.py", "test_encoders_end_to_end.py", "test_crash.py", "test_evaluate.py"),
)


def pytest_configure(config):
    """pytest-xdist would begin with the files of most tests."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    """Escape surrogates in captured output, which pytest-xdist cannot send between processes."""
    outcome = yield
    report = outcome.get_result()
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]


@pytest.fixture(autouse=True, scope="session")
def heed_signals():
    """Handle Ctrl-C and SIGHUP, which a suite started in the background or by nohup ignores, and so would the
    processes that the tests start."""
    handlers = {signal.SIGINT: signal.default_int_handler}
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = signal.SIG_DFL
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def no_room():
    """A context in which no file can grow beyond a few bytes, as on a full disk."""
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def limited():
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def start_script():
    """Start a script in the current folder: ``start_script("train.py", *arguments)`` gives a ScriptProcess, which is
    killed at the end of the test."""
    started = []

    def start(script, *arguments):
        started.append(ScriptProcess(script, *arguments, errors=Path("errors.txt").absolute()))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
