"""Files of a model are searched beside it before logs/44k."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.model_files import MODELS, find_diffusion, find_timbre


@pytest.fixture
def generator(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make(Path("models/anna/G_5.pth"))


def make(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize(("retrieval", "name"), [(False, "kmeans_10000.pt"), (True, "feature_and_index.pkl")])
def test_timbre_beside_the_model_is_preferred_and_another_folders_is_logged(generator, caplog, retrieval, name):
    assert find_timbre("", retrieval, generator) == generator.with_name(name)
    there = make(MODELS / name)
    assert find_timbre("", retrieval, generator) == there
    assert f"{there} is used, since there is none beside {generator}; it must be of the same voices" in caplog.text
    own = make(generator.with_name(name))
    assert find_timbre("", retrieval, generator) == own
    assert find_timbre("", retrieval, MODELS / "G_1.pth") == find_timbre("", retrieval) == there
    assert find_timbre("mine.pt", retrieval, generator) == Path("mine.pt")
    assert caplog.text.count("it must be of the same voices") == 1


def test_diffusion_beside_the_model_is_preferred(generator, caplog):
    for folder in (MODELS, generator.parent):
        make(folder / "diffusion/config.yaml")
        newest = make(folder / "diffusion/model_20.pt")
        make(folder / "diffusion/model_10.pt")
        assert find_diffusion(None, None, generator) == (newest, newest.with_name("config.yaml"))
    assert caplog.text.count("it must be of the same voices") == 1
