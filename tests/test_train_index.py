"""The index from features on disk, through the script."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import train_index
from cluster import retrieval
from cluster.retrieval import build_index, list_count, load_feature_index
from modules.config import save_config
from tests.feature_files import write_features
from tests.tiny import tiny_config


def features(count: int, seed: int = 0, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)


@pytest.fixture
def run(tmp_path):
    """Run the script on ``data`` and ``out`` under the test's folder, for speakers with numbers of their own."""
    values = tiny_config().to_dict() | {"spk": {"tenor": 1, "名 前": 0}}
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")

    def run_script(*flags: str) -> int:
        folders = ["-c", str(tmp_path / "config.json"), "--root_dir", str(tmp_path / "data")]
        return train_index.main([*folders, "--output_dir", str(tmp_path / "out/new"), *flags])

    return run_script


def vectors(path: Path, speaker_id: int) -> np.ndarray:
    index = load_feature_index(path).indexes[speaker_id]
    return index.reconstruct_n(0, index.ntotal)


def test_every_speaker_of_the_config_is_there_by_number_with_all_features(run, tmp_path):
    write_features(tmp_path / "data/tenor", features(120))
    write_features(tmp_path / "data/名 前", features(90, seed=1), clips=3)
    write_features(tmp_path / "data/not in the config", features(90, size=3))
    assert run() == 0
    path = tmp_path / "out/new/feature_and_index.pkl"
    index = load_feature_index(path)
    assert list(index.indexes) == [1, 0] and index.names == {"tenor": 1, "名 前": 0}
    np.testing.assert_array_equal(vectors(path, 1), features(120))
    np.testing.assert_array_equal(vectors(path, 0), features(90, seed=1))


@pytest.mark.parametrize(
    ("count", "lists"), [(1, 1), (38, 1), (77, 1), (78, 2), (3900, 100), (389_000, 9974), (390_000, 9991)]
)
def test_the_number_of_lists_is_the_published_one_and_at_least_one(count, lists):
    assert list_count(count) == lists
    if count < 10_000:
        index = build_index(features(count, size=2))
        assert (index.nlist, index.ntotal, index.nprobe) == (lists, count, 1)


def test_more_features_than_a_block_are_all_added(monkeypatch):
    monkeypatch.setattr(retrieval, "BLOCK", 100)
    np.testing.assert_array_equal(build_index(features(250)).reconstruct_n(0, 250), features(250))


def test_very_many_features_are_replaced_by_centres(run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(retrieval, "MAX_FEATURES", 100)
    monkeypatch.setattr(retrieval, "REDUCED_TO", 40)
    write_features(tmp_path / "data/tenor", features(101))
    write_features(tmp_path / "data/名 前", features(100))
    assert run() == 0
    path = tmp_path / "out/new/feature_and_index.pkl"
    assert len(vectors(path, 1)) == 40 and len(vectors(path, 0)) == 100
    assert "tenor: 101 features, reduced to 40 centres" in caplog.messages


def test_speakers_without_features_and_odd_features_are_named(run, tmp_path, capsys):
    write_features(tmp_path / "data/tenor", features(50))
    (tmp_path / "data/名 前").mkdir()
    assert run() == 2
    errors = capsys.readouterr().err
    assert "data/名 前" in errors and "tenor" not in errors and "preprocess_hubert_f0.py" in errors
    write_features(tmp_path / "data/名 前", features(50, size=4))
    assert run() == 2
    assert "空 0.wav.soft.pt holds features of size 4, those before it have 8" in capsys.readouterr().err
    torch.save(torch.full((1, 8, 3), torch.inf), tmp_path / "data/名 前/空 0.wav.soft.pt")
    assert run() == 2
    assert "holds values that are not finite" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.*"))


def test_a_speaker_that_was_removed_from_the_data_is_left_out_by_name(run, tmp_path, caplog):
    write_features(tmp_path / "data/tenor", features(50))
    assert run() == 0
    assert list(load_feature_index(tmp_path / "out/new/feature_and_index.pkl").indexes) == [1]
    assert "left out: 名 前" in caplog.text


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "tenor/", "/", "../data/tenor"])
def test_a_speaker_whose_name_is_no_folder_of_the_data_is_left_out(run, tmp_path, caplog, capsys, name):
    for folder in ("tenor", "a/b", ".."):
        write_features(tmp_path / "data" / folder, features(50))
    config = tiny_config()
    config.spk = {name: 0, "tenor": 1}
    save_config(config, tmp_path / "odd.json")
    assert run("-c", str(tmp_path / "odd.json")) == 0
    assert list(load_feature_index(tmp_path / "out/new/feature_and_index.pkl").indexes) == [1]
    assert f"left out: {name}, without a folder" in caplog.text
    config.spk = {name: 0}
    save_config(config, tmp_path / "odd.json")
    assert run("-c", str(tmp_path / "odd.json")) == 2
    assert f"holds no folder of the speakers of {tmp_path}/odd.json ({name})" in capsys.readouterr().err


def test_wrong_flags_are_refused_in_a_sentence(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/new").write_text("x", encoding="utf-8")
    assert run() == 2
    assert "--output_dir" in (errors := capsys.readouterr().err) and "is a file" in errors
    assert run("--output_dir", str(tmp_path), "-c", str(tmp_path / "none.json")) == 2
    assert "none.json" in capsys.readouterr().err
    values = tiny_config().to_dict() | {"spk": {}}
    (tmp_path / "none.json").write_text(json.dumps(values), encoding="utf-8")
    assert run("--output_dir", str(tmp_path), "-c", str(tmp_path / "none.json")) == 2
    assert "names no speakers" in capsys.readouterr().err
