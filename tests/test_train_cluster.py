"""Cluster centres, from features on disk to the nearest centre of a unit, through the script and its file."""

from __future__ import annotations

import os
import pickle
import pickletools
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from cluster import train_cluster
from cluster.centres import load_cluster_model, save_cluster_model
from modules.console import UserError
from tests.feature_files import write_features

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "faiss", "scipy", "sklearn", "numpy")


def features(count: int = 60, size: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the script, for 20 centres, on ``data`` and ``out`` under the test's folder."""
    monkeypatch.setattr(train_cluster, "CENTRES", 20)

    def run_script(*flags: str) -> int:
        return train_cluster.main(["--dataset", str(tmp_path / "data"), "--output", str(tmp_path / "out"), *flags])

    return run_script


def test_the_file_serves_the_original(run, tmp_path):
    """Which puts what it reads into a shell of scikit-learn's."""
    write_features(tmp_path / "data/alto", features(seed=1))
    write_features(tmp_path / "data/名 前", features(seed=2))
    assert run() == 0
    path = tmp_path / "out/kmeans_10000.pt"
    saved, model, units = torch.load(path, weights_only=False), load_cluster_model(path), features(30, seed=3)
    assert list(saved) == model.speakers == ["alto", "名 前"] and model.feature_size == 5
    for name, entry in saved.items():
        assert entry["cluster_centers_"].dtype == np.float32 and entry["cluster_centers_"].shape == (20, 5)
        shell = KMeans(entry["n_features_in_"])
        shell.__dict__.update(entry)
        wanted = shell.cluster_centers_[shell.predict(units)]
        np.testing.assert_array_equal(model.nearest(torch.from_numpy(units), name).numpy(), wanted)


def test_arrays_are_pickled_by_names_that_every_numpy_has(tmp_path):
    save_cluster_model(tmp_path / "a.pt", {"alto": features()})
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        (pickled,) = (archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    operations = pickletools.genops(pickled)
    names = {argument for operation, argument, _ in operations if operation.name == "GLOBAL"}
    assert names == {"numpy ndarray", "numpy dtype", "_codecs encode"}


@pytest.mark.parametrize(("protocol", "numpy_1_names"), [(2, True), (2, False), (4, False)])
def test_a_file_of_the_originals_is_read(tmp_path, protocol, numpy_1_names):
    centres = np.asfortranarray(features(12, 4))
    entry = {"n_features_in_": 4, "_n_threads": 4, "cluster_centers_": centres}
    torch.save({"alto": entry}, tmp_path / "a.pt", pickle_protocol=protocol)
    if numpy_1_names:
        rewrite_pickle(tmp_path / "a.pt", lambda data: data.replace(b"numpy._core", b"numpy.core"))
    model = load_cluster_model(tmp_path / "a.pt")
    np.testing.assert_array_equal(model.centres["alto"], centres)
    units = torch.from_numpy(features(9, 4, seed=7)).double()
    nearest = model.nearest(units, "alto")
    wanted = centres[((units.numpy()[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)]
    assert nearest.dtype == torch.float64 and nearest.shape == units.shape
    np.testing.assert_array_equal(nearest.numpy(), wanted)


def rewrite_pickle(path: Path, change) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)


def test_fewer_features_than_centres_give_fewer_and_the_log_says_so(run, tmp_path, caplog):
    few = features(7)
    write_features(tmp_path / "data/alto", few)
    write_features(tmp_path / "data/tenor", features(50))
    assert run() == 0
    assert "alto: 7 centres of 7 features; too few (different) ones for 20" in caplog.messages
    assert "tenor: 20 centres of 50 features" in caplog.messages
    np.testing.assert_array_equal(load_cluster_model(tmp_path / "out/kmeans_10000.pt").centres["alto"], few)


def test_hidden_folders_and_files_and_plain_files_are_passed_over(run, tmp_path):
    write_features(tmp_path / "data/alto", features())
    write_features(tmp_path / "data/.ipynb_checkpoints", features(size=9))
    write_features(tmp_path / "data/alto/.hidden", features(size=9))
    (tmp_path / "data/alto/.x.wav.soft.pt").write_bytes(b"no tensor")
    (tmp_path / "data/notes.txt").write_text("x", encoding="utf-8")
    assert run() == 0
    assert load_cluster_model(tmp_path / "out/kmeans_10000.pt").speakers == ["alto"]


def test_speakers_without_features_are_named_before_any_work(run, tmp_path, capsys):
    write_features(tmp_path / "data/alto", features())
    for name in ("bass", "tenor"):
        (tmp_path / "data" / name).mkdir()
    assert run() == 2
    errors = capsys.readouterr().err
    assert "data/bass" in errors and "data/tenor" in errors and "alto" not in errors
    assert "run 'python preprocess_hubert_f0.py'" in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_folder_that_no_stage_takes_for_a_speakers_is_left_out(run, tmp_path, capsys, caplog):
    (tmp_path / "data/a|b").mkdir(parents=True)
    assert run() == 2 and "no features" in capsys.readouterr().err
    write_features(tmp_path / "data/alto", features())
    assert run() == 0
    assert load_cluster_model(tmp_path / "out/kmeans_10000.pt").speakers == ["alto"]
    assert f"left out: {tmp_path}/data/a|b has '|' in its name" in caplog.text


def test_unusable_features_are_named_and_nothing_is_written(run, tmp_path, capsys):
    write_features(tmp_path / "data/alto", features())
    write_features(tmp_path / "data/tenor", features(size=6))
    assert run() == 2
    assert "空 0.wav.soft.pt holds features of size 6, those before it have 5" in capsys.readouterr().err
    bad = torch.zeros(1, 5, 8)
    bad[0, 0, 3] = float("nan")
    torch.save(bad, tmp_path / "data/tenor/空 0.wav.soft.pt")
    assert run() == 2
    assert "空 0.wav.soft.pt holds values that are not finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_wrong_flags_are_refused_in_a_sentence(run, tmp_path, capsys):
    assert run() == 2
    assert "there is no folder" in capsys.readouterr().err
    (tmp_path / "out").write_text("x", encoding="utf-8")
    assert run() == 2
    assert f"--output {tmp_path / 'out'} is a file" in capsys.readouterr().err
    (tmp_path / "out").unlink()
    write_features(tmp_path / "data/alto", features())
    assert run("--gpu") == 2
    assert "--gpu needs a CUDA device" in capsys.readouterr().err


def test_a_write_that_fails_leaves_the_former_file(run, tmp_path, no_room, capsys):
    write_features(tmp_path / "data/alto", features())
    assert run() == 0
    path = tmp_path / "out/kmeans_10000.pt"
    former = path.read_bytes()
    with no_room():
        assert run() == 2
    assert "kmeans_10000.pt cannot be written" in capsys.readouterr().err
    assert path.read_bytes() == former and [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_same_features_give_the_same_centres(run, tmp_path):
    write_features(tmp_path / "data/alto", features())
    found = []
    for _ in range(2):
        assert run() == 0
        found.append(load_cluster_model(tmp_path / "out/kmeans_10000.pt").centres["alto"])
    np.testing.assert_array_equal(*found)


def test_it_runs_as_a_script_and_its_help_loads_nothing_heavy(tmp_path):
    write_features(tmp_path / "data/alto", features())
    folders = ["--dataset", str(tmp_path / "data"), "--output", str(tmp_path)]
    command = [sys.executable, "cluster/train_cluster.py", *folders]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert load_cluster_model(tmp_path / "kmeans_10000.pt").centres["alto"].shape == (60, 5)
    program = (
        "import runpy, sys\nsys.argv = ['cluster/train_cluster.py', '-h']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\n"
        f"assert not set({HEAVY!r}) & set(sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert "python cluster/train_cluster.py" in run.stdout


# -- files that are not what they should be ---------------------------------------------------------------------------


def test_a_speaker_or_a_size_that_is_not_there_is_named(tmp_path):
    save_cluster_model(tmp_path / "a.pt", {"alto": features(), "tenor": features()})
    model = load_cluster_model(tmp_path / "a.pt")
    with pytest.raises(UserError, match="a.pt holds no centres of 'bass', only of alto, tenor"):
        model.nearest(torch.zeros(3, 5), "bass")
    with pytest.raises(UserError, match="a.pt holds features of size 5, the speech encoder gives 8"):
        model.nearest(torch.zeros(3, 8), "alto")
    with pytest.raises(UserError, match="there is no .*b.pt; 'python cluster/train_cluster.py' makes it"):
        load_cluster_model(tmp_path / "b.pt")


@pytest.mark.parametrize(
    "saved",
    [
        {},
        [1, 2],
        {"alto": 3},
        {"alto": {"n_features_in_": 4}},
        {"alto": {"cluster_centers_": np.zeros(4, np.float32)}},
        {"alto": {"cluster_centers_": np.zeros((2, 4, 1), np.float32)}},
        {"alto": {"cluster_centers_": np.full((2, 4), np.nan)}},
        {"alto": {"cluster_centers_": np.zeros((2, 4))}, "tenor": {"cluster_centers_": np.zeros((2, 5))}},
    ],
    ids=str,
)
def test_a_file_of_anything_else_is_refused(tmp_path, saved):
    torch.save(saved, tmp_path / "a.pt")
    with pytest.raises(UserError, match="a.pt holds no cluster centres by speaker"):
        load_cluster_model(tmp_path / "a.pt")


class Runs:
    """Runs ``function(*arguments)`` in an ordinary reader."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


class ListOfTricks(list):
    """A subclass whose very making would import this module."""


@pytest.mark.parametrize("position", ["whole", "entry", "array", "key"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch ran",)),
        (eval, ("open('ran', 'w')",)),
        (exec, ("open('ran', 'w')",)),
        (getattr, (Runs(__import__, "os"), "system")),
        (np.load, ("ran",)),
        (np.fromfile, ("ran",)),
        (torch.load, ("ran",)),
        (ListOfTricks, ()),
        (pickle.loads, (pickle.dumps(Runs(os.system, "touch ran")),)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_malicious_file_runs_nothing(tmp_path, monkeypatch, position, zipped, function, arguments):
    monkeypatch.chdir(tmp_path)
    trap = Runs(function, *arguments)
    saved = {
        "whole": trap,
        "entry": {"alto": trap},
        "array": {"alto": {"n_features_in_": 4, "_n_threads": 4, "cluster_centers_": trap}},
        "key": {"alto": {"cluster_centers_": features()}, HashableTrap(trap): 1},
    }[position]
    torch.save(saved, "a.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="a.pt is refused: its pickle uses"):
        load_cluster_model("a.pt")
    assert not Path("ran").exists()


class HashableTrap:
    """A key of a dictionary that is pickled as another object."""

    def __init__(self, trap: Runs):
        self.trap = trap

    def __reduce__(self):
        return self.trap.parts


def test_a_damaged_file_is_refused_at_any_length(tmp_path):
    save_cluster_model(tmp_path / "a.pt", {"alto": features()})
    data = (tmp_path / "a.pt").read_bytes()
    for length in range(0, len(data), max(1, len(data) // 25)):
        (tmp_path / "a.pt").write_bytes(data[:length])
        with pytest.raises(UserError, match="a.pt"):
            load_cluster_model(tmp_path / "a.pt")
