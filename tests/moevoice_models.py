"""Models and songs for the host of tests/moevoice_host.py, and what its tests share."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from tests import moevoice_host
from tests.encoder_files import write_encoder_file
from tests.generator_files import stirred
from tests.onnx_files import onnx
from tests.test_svc import write_model
from tests.tiny import tiny_config

DIFFUSION = {"data": {"encoder": "vec256l9", "encoder_out_channels": 256}, "n_layers": 2}


def song(seconds: float) -> np.ndarray:
    """A glide with overtones, vibrato of loudness and faint noise at the host's rate."""
    time = np.arange(int(seconds * moevoice_host.RATE)) / moevoice_host.RATE
    phase = 2 * np.pi * (200 * time + 30 * time**2)
    audio = sum(0.3 / k * np.sin(k * phase) for k in range(1, 12)) * (0.6 + 0.4 * np.sin(9 * time))
    return (audio + 1e-3 * np.random.default_rng(0).standard_normal(len(time))).astype(np.float32)


def make_root(folder: Path, monkeypatch) -> Path:
    """Make the host's folder, with an encoder, the working folder, whose ``checkpoints`` are the host's ``Models``."""
    monkeypatch.chdir(folder)
    Path("checkpoints").mkdir()
    Path("Models").symlink_to("checkpoints")
    write_encoder_file("vec256l9-onnx", Path("hubert"))
    return folder


def write_synthesizer(folder: Path, change=lambda config: None, **model) -> tuple[Path, Path]:
    """Write a checkpoint and its config that fit the host's noise and encoder, but for ``change`` and ``model``."""
    config = tiny_config()
    sizes = {"inter_channels": moevoice_host.NOISE_CHANNELS, "speech_encoder": "vec256l9", "ssl_dim": 256}
    config.model = dataclasses.replace(config.model, **{**sizes, "gin_channels": 256, **model})
    change(config)
    folder.mkdir(parents=True)
    network, config_path = write_model(folder, config, stirred)
    return network.rename(folder / "model.pth"), config_path


def speakers(**rows: int):
    """Return a function that gives a config these speakers."""

    def change(config):
        config.spk = rows
        config.model.n_speakers = max(rows.values()) + 1

    return change


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


def facts(root: Path, name: str = "alto") -> dict:
    return json.loads((root / "Models" / f"{name}.json").read_text(encoding="utf-8"))
