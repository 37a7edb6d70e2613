"""A host with MoeVoiceStudio's calls converts with what ``onnx_export.py`` writes, and gets the program's results."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import onnx_export
from tests import moevoice_host
from tests.encoder_files import write_encoder_file
from tests.generator_files import stirred
from tests.onnx_files import onnx
from tests.pitch_files import write_fcpe, write_narrow_rmvpe
from tests.test_svc import write_model
from tests.tiny import tiny_config

HOST = Path(moevoice_host.__file__)


def song(seconds: float) -> np.ndarray:
    """A glide with overtones, vibrato of loudness and faint noise at the host's rate."""
    time = np.arange(int(seconds * moevoice_host.RATE)) / moevoice_host.RATE
    phase = 2 * np.pi * (200 * time + 30 * time**2)
    audio = sum(0.3 / k * np.sin(k * phase) for k in range(1, 12)) * (0.6 + 0.4 * np.sin(9 * time))
    return (audio + 1e-3 * np.random.default_rng(0).standard_normal(len(time))).astype(np.float32)


def test_the_host_imports_nothing_of_the_program():
    imported = set()
    for node in ast.walk(ast.parse(HOST.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported == {"__future__", "json", "pathlib", "faiss", "numpy", "onnxruntime"}


# -- the JSON ---------------------------------------------------------------------------------------------------------


def silence_random_nodes(path: Path) -> None:
    """Scale the random numbers inside a graph to almost zero; ONNX Runtime refuses a deviation of exactly zero."""
    graph = onnx.load(path)
    nodes = [node for node in graph.graph.node if node.op_type.startswith("Random")]
    assert len(nodes) == 2  # first phases, and noise
    for node in nodes:
        least = {"mean": 0.0, "scale": 1e-30} if "Normal" in node.op_type else {"low": 0.0, "high": 1e-30}
        kept = [one for one in node.attribute if one.name not in least]
        del node.attribute[:]
        node.attribute.extend(kept + [onnx.helper.make_attribute(*one) for one in least.items()])
    onnx.save(graph, path)


def lay(root: Path, change=lambda config: None, **model) -> Path:
    """Write a checkpoint below the host's folder ``Models``, for the host's noise; returns its path."""
    config = tiny_config()
    sizes = {"inter_channels": moevoice_host.NOISE_CHANNELS, "speech_encoder": "vec256l9", "ssl_dim": 256}
    config.model = dataclasses.replace(config.model, **{**sizes, "gin_channels": 256, **model})
    change(config)
    folder = root / "Models" / "alto"
    folder.mkdir(parents=True)
    path, _ = write_model(folder, config, stirred)
    return path.rename(folder / "model.pth")


def export(checkpoint: Path) -> Path:
    """Export a synthesizer where the host looks for it; returns the host's folder."""
    graph = checkpoint.with_name("alto_SoVits.onnx")
    assert onnx_export.main(["--model", str(checkpoint), "--out", str(graph)]) == 0
    graph.with_suffix(".json").rename(checkpoint.parent.with_suffix(".json"))
    return checkpoint.parents[2]


def facts(root: Path, name: str = "alto") -> dict:
    return json.loads((root / "Models" / f"{name}.json").read_text(encoding="utf-8"))


def test_the_json_names_the_encoder_and_the_width_that_the_host_compares_with_its_units(tmp_path):
    root = export(lay(tmp_path, gin_channels=4))
    write_encoder_file("vec256l9-onnx", root / "hubert")
    audio = song(0.5)
    assert moevoice_host.Synthesizer(root, "alto").sing(audio, np.full(43, 220.0)).shape == (1, 1, 43 * 512)


def test_a_model_that_the_hosts_noise_does_not_fit_is_named_at_export(tmp_path, caplog):
    def narrow(config):
        config.model.inter_channels = 16

    root = export(lay(tmp_path, narrow))
    write_encoder_file("vec256l9-onnx", root / "hubert")
    with pytest.raises(Exception, match="(?s)noise.*Got: 192 Expected: 16"):
        moevoice_host.Synthesizer(root, "alto").sing(song(0.5), np.full(43, 220.0))
    note = "MoeVoiceStudio cannot run this model: its noise has 192 channels, and the model's (inter_channels) 16"
    assert facts(root)["Note"] == note and note in caplog.text


@pytest.mark.parametrize("rows", [{"tenor": 1}, {"tenor": 1, "alto": 0}])
def test_a_place_in_characters_is_the_speaker_of_that_name(tmp_path, rows):
    """The host passes the place; the row of the speaker embedding is another."""

    def named(config):
        config.spk = rows

    def alone(config):
        config.spk = {"alto": 0}

    audio, f0 = song(0.5), np.full(43, 220.0)
    sounds = {}
    for folder, change in (("rows", named), ("alto", alone)):
        root = export(lay(tmp_path / folder, change))
        write_encoder_file("vec256l9-onnx", root / "hubert")
        silence_random_nodes(root / "Models" / "alto" / "alto_SoVits.onnx")
        synthesizer = moevoice_host.Synthesizer(root, "alto")
        for place, name in enumerate(facts(root)["Characters"]):
            sounds[folder, name] = synthesizer.sing(audio, f0, place)
    tenor, alto = sounds["rows", "tenor"], sounds["alto", "alto"]
    assert np.abs(tenor - alto).max() > 0.1 * np.abs(alto).max()
    if "alto" in rows:
        np.testing.assert_allclose(sounds["rows", "alto"], alto, atol=1e-4 * np.abs(alto).max())


# -- pitch networks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "method"), [("rmvpe", "RMVPE"), ("fcpe", "MELPE")])
def test_the_host_runs_the_pitch_networks_under_the_names_that_it_asks_for(tmp_path, monkeypatch, key, method):
    folder = tmp_path / "F0Predictor"
    folder.mkdir()
    if key == "rmvpe":
        write_narrow_rmvpe(folder / "rmvpe.pt", monkeypatch)
    else:
        write_fcpe(folder / "fcpe.pt")
    assert onnx_export.main(["--f0", key, "--pretrain", str(folder)]) == 0
    f0 = moevoice_host.f0_of(tmp_path, method, song(0.5), 43)
    assert f0.shape == (43,) and (f0 > 0).any()
