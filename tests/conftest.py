"""What all tests share. Before anything else is imported, each test process takes its share of the cores."""

import contextlib
import os
import signal

import pytest

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # not in the process that starts them: they inherit it
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))


@pytest.fixture(autouse=True, scope="session")
def heed_ctrl_c():
    """A suite started in the background ignores it, and so would what the tests start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
