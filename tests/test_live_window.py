"""The window on a virtual screen: keyboard, errors as sentences, pictures of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.generator_files import config_of, write_generator_file

ROOT = Path(__file__).parents[1]
tkinter = pytest.importorskip("tkinter", reason="this Python has no Tk")


@pytest.fixture
def screen(tmp_path):
    """A display: a virtual one of its own by Xvfb."""
    if not shutil.which("Xvfb"):
        pytest.skip("Xvfb is not installed")
    reader, writer = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "800x700x24", "-nolisten", "tcp"],
        pass_fds=(writer,),
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    with os.fdopen(reader) as pipe:
        number = pipe.readline().strip()  # written when the server is ready
    yield f":{number}"
    server.terminate()
    server.wait()


def test_the_window_works_by_keyboard_and_shows_errors_as_sentences(screen, tmp_path):
    from PIL import Image

    write_generator_file(tmp_path / "G_0.pth", config_of(ssl_dim=72))
    run = subprocess.run(
        [sys.executable, "-m", "tests.live_window", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "DISPLAY": screen, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0 and "the window works" in run.stdout, run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    for name in ("error.png", "running.png"):
        picture = Image.open(tmp_path / name).convert("L")
        assert picture.width > 300 and picture.height > 300
        assert len(set(picture.tobytes())) > 30  # text is drawn


def test_without_a_screen_the_window_is_refused_in_a_sentence(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    if sys.platform != "linux":
        pytest.skip("only Linux has sessions without a screen")
    run = subprocess.run([sys.executable, "gui.py"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 2 and "the window cannot open" in run.stderr and "Traceback" not in run.stderr
