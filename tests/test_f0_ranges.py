"""The F0 range of each speaker, measured after preparation and kept in the configuration."""

import numpy as np

import preprocess_hubert_f0
from modules.config import load_config, save_config
from modules.data.features import ClipFiles
from preparation.configs import fitted_configs
from preparation.f0_ranges import measure_f0_ranges
from tests.test_features import make_clip


def test_percentiles_are_those_of_the_voiced_frames(tmp_path):
    clips = [tmp_path / f"{number}.wav" for number in range(3)]
    for number, clip in enumerate(clips[:2]):
        f0 = np.linspace(100, 200, 101) + 100 * number
        ClipFiles(clip).write_f0(np.append(f0, [5000.0]), np.append(np.ones(101), [0.0]))
    ranges = measure_f0_ranges({"alto": clips, "mute": clips[2:]})  # the third has no file
    assert list(ranges) == ["alto"]
    np.testing.assert_allclose(ranges["alto"], [120, 200, 280], atol=0.5)


def test_stage_3_writes_them_to_the_configuration_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "dataset" / "44k" / "alto" / "a.wav", f0=220.0)
    save_config(fitted_configs({"alto": 0}, "mfcc")[0], "configs/config.json")
    assert preprocess_hubert_f0.main(["--f0_predictor", "pm"]) == 0
    ranges = load_config("configs/config.json").f0
    assert list(ranges) == ["alto"]
    np.testing.assert_allclose(ranges["alto"], 220, rtol=0.01)
    before = (tmp_path / "configs" / "config.json").stat()
    assert preprocess_hubert_f0.main(["--f0_predictor", "pm"]) == 0
    assert (tmp_path / "configs" / "config.json").stat() == before
