"""A host that knows nothing of this program sings with its graphs what the program sings itself."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from inference.svc import Svc
from onnxexport.encoders import export_encoder
from onnxexport.f0 import export_f0
from onnxexport.synthesizer import export_synthesizer
from tests.encoder_files import write_encoder_file
from tests.generator_files import stirred
from tests.onnx_files import onnx
from tests.test_svc import write_model
from tests.tiny import tiny_config

HOST = Path(__file__).with_name("onnx_host.py")
RATE, HOP = 44100, 512
SECONDS = 1.3


def silence_draws(path: Path) -> None:
    """Make all random numbers that a graph draws itself nothing; ONNX Runtime takes no deviation of exactly zero."""
    graph = onnx.load(path)
    nodes = [node for node in graph.graph.node if node.op_type.startswith("Random")]
    assert len(nodes) == 2  # first phases, and noise
    for node in nodes:
        least = {"mean": 0.0, "scale": 1e-30} if "Normal" in node.op_type else {"low": 0.0, "high": 1e-30}
        kept = [one for one in node.attribute if one.name not in least]
        del node.attribute[:]
        node.attribute.extend(kept + [onnx.helper.make_attribute(*one) for one in least.items()])
    onnx.save(graph, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What a user gives to a host: three graphs and a JSON file; and what they were made of."""
    folder = tmp_path_factory.mktemp("host")
    config = tiny_config()
    config.model.ssl_dim, config.model.speech_encoder, config.model.vol_embedding = 768, "vec768l12", True
    network, config_path = write_model(folder, config, stirred)
    write_encoder_file("vec768l12", folder / "pretrain")
    export_encoder("vec768l12", folder / "encoder.onnx", pretrain=folder / "pretrain")
    export_f0("fcpe", folder / "f0.onnx", pretrain=folder / "pretrain")  # the network that comes with torchfcpe
    export_synthesizer(network, config_path, folder / "synthesizer.onnx", folder / "model.json", "model")
    silence_draws(folder / "synthesizer.onnx")
    time = np.arange(int(SECONDS * RATE)) / RATE
    phase = 2 * np.pi * (200 * time + 30 * time**2)
    song = sum(0.3 / k * np.sin(k * phase) for k in range(1, 12)) * (0.6 + 0.4 * np.sin(9 * time))
    song += 1e-3 * np.random.default_rng(0).standard_normal(len(song))
    soundfile.write(folder / "song.wav", song, RATE, subtype="PCM_16")
    return folder


@pytest.fixture(scope="module")
def host(folder):
    """What the host makes of (speaker, noise), run where this program cannot be imported."""

    @functools.cache
    def sing(speaker: str, noise: float) -> np.ndarray:
        graphs = ("encoder.onnx", "f0.onnx", "synthesizer.onnx", "model.json")
        command = [sys.executable, "-I", HOST, *graphs, speaker, str(noise), "song.wav", "converted.wav"]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8")
        assert run.returncode == 0, run.stderr
        return soundfile.read(folder / "converted.wav", dtype="float32")[0]

    return sing


def test_the_host_imports_numpy_onnxruntime_and_the_standard_library_alone():
    imported = set()
    for node in ast.walk(ast.parse(HOST.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported == {"json", "math", "numpy", "onnxruntime", "sys", "wave"}


@pytest.mark.parametrize("speaker", ["alto", "tenor"])
def test_the_host_sings_what_the_program_sings(folder, host, monkeypatch, speaker):
    monkeypatch.setattr("vdecoder.source.random_tensor", lambda kind, shape, device, generator: torch.zeros(shape))
    svc = Svc(folder / "G_1.pth", folder / "config.json", "cpu", pretrain_folder=folder / "pretrain")
    wanted, _, frames = svc.infer(speaker, 0, folder / "song.wav", noice_scale=0, f0_predictor="fcpe")
    wanted, found = wanted.numpy(), host(speaker, 0)
    assert len(found) == len(wanted) == frames * HOP == int(SECONDS * RATE) // HOP * HOP
    # 16 bits, and a resampler of its own. The network is random and saturates, so single samples differ by more.
    assert np.linalg.norm(found - wanted) <= 1e-3 * np.linalg.norm(wanted)


def test_the_voices_differ_and_noise_matters(host):
    alto, tenor, noisy = host("alto", 0), host("tenor", 0), host("alto", 0.4)
    for other in (tenor, noisy):
        assert np.abs(alto - other).max() > 0.1 * np.abs(alto).max()
