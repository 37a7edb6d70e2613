"""The same command gives the same song: whole conversions against the original program's results.

Full-size networks convert a song of a few seconds; the weights are stand-ins made by the parity recipe.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.centres import save_cluster_model
from inference.svc import Svc
from modules.config import Config, save_config
from tests.checkpoint_files import write_fairseq_checkpoint
from tests.parity import DATA, FIXTURES, errors
from tests.parity.fixtures import SONG, CompactFixtures
from tests.parity.inference import use_published_placement
from tests.parity.recipe import fill, recipe_values, undrawn
from vits.synthesizer import Synthesizer

SOURCE = FIXTURES if FIXTURES.song.is_file() else CompactFixtures(DATA)  # a folder may lack the song
SETTINGS, RESULTS = SOURCE.meta(SONG), SOURCE.outputs(SONG)


@pytest.fixture(scope="module")
def pretrain(tmp_path_factory) -> Path:
    """A folder with the ContentVec checkpoint of the original's results."""
    folder = tmp_path_factory.mktemp("pretrain")
    shapes = SOURCE.meta("H_contentvec")["state_dict"]
    weights = {
        name: torch.from_numpy(recipe_values(name, tuple(shape), SETTINGS["recipe_seed_hubert"]))
        for name, shape in shapes.items()
    }
    write_fairseq_checkpoint(folder / "checkpoint_best_legacy_500.pt", weights)
    return folder


@pytest.fixture(scope="module")
def converters(pretrain, tmp_path_factory):
    """variant -> Svc, each built once. All have the same units and F0 of the same piece, which are computed once."""
    built: dict[str, Svc] = {}

    def converter(variant: str) -> Svc:
        if variant not in built:
            built.clear()
            folder = tmp_path_factory.mktemp(variant)
            config = Config.from_dict({"spk": SETTINGS["spk"], "data": {"unit_interpolate_mode": "nearest"}})
            constructor = SOURCE.meta("A_default_infer")["constructor"] | SETTINGS["config_changes"].get(variant, {})
            for key in vars(config.model).keys() & constructor.keys():
                setattr(config.model, key, constructor[key])
            with undrawn():
                generator = Synthesizer(config.model, constructor["spec_channels"], constructor["segment_size"])
            fill(generator, SETTINGS["recipe_seed_generator"][variant])
            torch.save({"model": generator.state_dict(), "iteration": 1}, folder / "G_1.pth")
            save_config(config, folder / "config.json")
            write_clusters(folder / "kmeans.pt", config.model.ssl_dim)
            files = folder / "G_1.pth", folder / "config.json", "cpu", folder / "kmeans.pt"
            built[variant] = Svc(*files, pretrain_folder=pretrain, cache_folder=pretrain / "features")
        return built[variant]

    return converter


def write_clusters(path: Path, features: int) -> None:
    """The centres that the settings describe: "default_rng(11), ..., standard_normal (64, 768) float32"."""
    recipe = SETTINGS["kmeans"]
    seed, count = (int(re.search(pattern, recipe)[1]) for pattern in (r"default_rng\((\d+)\)", r"\((\d+), \d+\)"))
    rng = np.random.default_rng(seed)
    save_cluster_model(
        path, {name: rng.standard_normal((count, features)).astype(np.float32) for name in SETTINGS["spk"]}
    )


@pytest.mark.parametrize("name", sorted(RESULTS))
def test_the_same_command_gives_the_same_song(name, converters, monkeypatch):
    use_published_placement(monkeypatch)
    variant, case = name.split("_", 1)
    settings = SETTINGS["base"] | SETTINGS["cases"][case]
    if settings["use_spk_mix"]:
        settings["spk"] = dict(enumerate(SETTINGS["mix"]))
    song = converters(variant).slice_inference(SOURCE.song, **settings)
    _, difference = errors(song * 32768, RESULTS[name])  # which are 16-bit samples
    assert difference <= 0.01


def test_every_case_has_a_result():
    assert {name.split("_", 1)[1] for name in RESULTS} == set(SETTINGS["cases"])
