"""The memory of every F0 predictor grows at most linearly with the sound, within a known bound."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modules.f0 import F0_PREDICTORS, crepe

MIB = 2**20
# Bounds per second of sound at 44100 Hz, at least twice the measured values (benchmarks/README.md).
BYTES_PER_SECOND = {
    "pm": 2 * MIB,
    "dio": 10 * MIB,
    "harvest": 10 * MIB,
    "crepe": 2 * MIB,
    "rmvpe": 30 * MIB,
    "fcpe": 8 * MIB,
}


def test_every_predictor_has_a_bound():
    assert set(BYTES_PER_SECOND) == set(F0_PREDICTORS)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured by Linux's /proc")
def test_memory_per_second_of_sound_is_within_the_bound():
    root = Path(__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-m", "tests.f0_memory"], cwd=root, capture_output=True, text=True, encoding="utf-8"
    )
    assert run.returncode == 0, run.stderr
    measured = json.loads(run.stdout.splitlines()[-1])
    assert {key: value for key, value in measured.items() if value > BYTES_PER_SECOND[key]} == {}, measured


def test_crepes_network_never_sees_more_than_a_batch(monkeypatch):
    sizes = []

    def network(windows):
        sizes.append(len(windows))
        return torch.zeros(len(windows), 360)

    monkeypatch.setattr(crepe, "_network", lambda device: network)
    predictor = F0_PREDICTORS["crepe"].load()(16000, 160)
    wave = torch.rand(1, 160 * (crepe.PATH + crepe.BATCH))
    predictor._predict(wave, 160)
    assert max(sizes) == crepe.BATCH and sum(sizes) == 1 + crepe.PATH + crepe.BATCH
