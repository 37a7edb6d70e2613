"""Pictures of F0 over the spectrogram: a few clips, the whole curve, on a machine without a screen."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from modules.config import Config, save_config
from modules.data.features import ClipFiles
from preparation.configs import fitted_configs
from preparation.plots import _levels, evenly_spaced, plot_f0

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path):
    for number, f0 in enumerate((150, 440, 800)):
        clip = tmp_path / "44k" / "a 声" / f"{number}.wav"
        clip.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(clip, 0.3 * np.sin(2 * np.pi * f0 * np.arange(30000) / 44100), 44100)
        if number < 2:
            ClipFiles(clip).write_f0(np.full(58, f0, np.float32), (np.arange(58) % 20 > 5).astype(np.float32))
    return tmp_path / "44k"


def config() -> Config:
    return fitted_configs({"a 声": 0}, "mfcc")[0]


def test_every_drawn_clip_becomes_a_picture_named_after_it(folder, tmp_path):
    paths = plot_f0(folder, config(), tmp_path / "plots")
    assert [path.name for path in paths] == ["a 声_0.png", "a 声_1.png"]  # the third has no F0
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == sorted(path.name for path in paths)


def test_a_clip_that_cannot_be_read_is_named_and_the_others_are_drawn(folder, tmp_path, caplog):
    (folder / "a 声" / "0.wav").write_bytes(b"RIFF")
    assert [path.name for path in plot_f0(folder, config(), tmp_path / "plots")] == ["a 声_1.png"]
    assert "not drawn" in caplog.text and "0.wav" in caplog.text


def test_f0_lies_on_the_spectrograms_peak(folder):
    audio, rate = soundfile.read(folder / "a 声" / "1.wav", dtype="float32")
    levels, frequencies = _levels(audio, rate, 512)
    assert levels.shape[1] == 30000 // 512 and levels.max() == 0 and levels.min() >= -70
    assert np.abs(frequencies[levels[:, 5:-5].argmax(axis=0)] - 440).max() <= rate / 4096


def test_a_sample_is_spread_evenly_and_never_repeats():
    assert evenly_spaced(list("abcdefghij"), 5) == list("acegi")
    assert evenly_spaced(list("abc"), 12) == list("abc") and evenly_spaced([], 3) == []


def test_the_script_draws_when_asked_and_loads_no_plotting_otherwise(folder, tmp_path):
    (tmp_path / "configs").mkdir()
    save_config(config(), tmp_path / "configs" / "config.json")
    command = [sys.executable, ROOT / "preprocess_hubert_f0.py", "--in_dir", "44k", "--f0_predictor", "pm"]
    run = subprocess.run(
        [*command, "--plot_f0", "plots"], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8"
    )
    assert run.returncode == 0, run.stderr
    assert len(list((tmp_path / "plots").glob("*.png"))) == 3 and "plots" in run.stderr
