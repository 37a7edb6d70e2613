"""The benchmark of ONNX Runtime measures every part, and refuses what it cannot measure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="onnx is not installed (requirements-onnx.txt)")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (requirements-onnx.txt)")

ROOT = Path(__file__).parents[1]


def benchmark(*flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "benchmarks/onnx.py", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")


@pytest.mark.parametrize("flags", [["--rounds", "0"], ["--seconds", "0.001"], ["--seconds", "nan"]])
def test_flags_that_measure_nothing_are_refused_in_one_sentence(flags):
    done = benchmark(*flags)
    assert done.returncode == 2
    assert done.stderr == "error: --rounds takes 1 or more, and --seconds 0.2 or more\n"


def test_a_parts_size_time_and_error_are_measured_in_a_precision():
    done = benchmark("--parts", "fcpe", "--precision", "fp16", "--seconds", "0.2", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    (figure,) = result["figures"]
    assert (result["precision"], figure["part"]) == ("fp16", "fcpe")
    assert 0 < figure["error"] < 0.1 and figure["megabytes"] < 40 and figure["onnx_s"] > 0
