"""Exported pitch networks equal the predictors: salience and F0 of audio of any length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from inference.listener import Listener
from inference.voices import Voices
from modules.console import UserError
from modules.f0 import build_f0_predictor
from modules.f0.graph import GraphPredictor
from onnxexport.f0 import export_f0, graph_path
from tests.onnx_files import onnx, onnxruntime
from tests.pitch_files import write_fcpe, write_narrow_rmvpe

EXAMPLE = 16000  # samples, the length that every graph was traced with
LENGTHS = (1024, 5000, 7777, 44321)
THRESHOLD = 0.3
NETWORKS = ("rmvpe", "fcpe", "bundled fcpe")


def song(samples: int, rate: int = 16000) -> np.ndarray:
    """A glide with overtones and background noise."""
    rng = np.random.default_rng(samples)
    time = np.arange(samples) / rate
    phase = 2 * np.pi * (180 * time + 30 * time**2)
    tones = sum(0.2 / k * np.sin(k * phase) for k in range(1, 8))
    return (tones + 1e-3 * rng.standard_normal(samples)).astype(np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Per network: its predictor and its graph; each weight file has its own folder."""
    patch, built = pytest.MonkeyPatch(), {}
    for network in NETWORKS:
        folder = tmp_path_factory.mktemp("pretrain")
        key = network.split()[-1]
        if network == "rmvpe":
            write_narrow_rmvpe(folder / "rmvpe.pt", patch)
        elif network == "fcpe":
            write_fcpe(folder / "fcpe.pt")
        export_f0(key, graph_path(key, folder), pretrain=folder)
        built[network] = build_f0_predictor(key, threshold=THRESHOLD, folder=folder), graph_path(key, folder)
    yield built
    patch.undo()


def run(path: Path, audio: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["f0", "salience"], {"audio": audio[None], "threshold": np.array([THRESHOLD], np.float32)})


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("samples", LENGTHS)
def test_salience_and_f0_are_the_predictors(made, network, samples):
    assert samples != EXAMPLE
    predictor, path = made[network]
    f0, salience = run(path, song(samples))
    with torch.inference_mode():
        mel = predictor.log_mel(torch.from_numpy(song(samples))[None])
        wanted = predictor.network(mel).numpy()
    assert salience.shape == wanted.shape == (1, samples // 160 + 1, 360)
    assert np.abs(salience - wanted).max() <= 1e-4 * np.abs(wanted).max()
    np.testing.assert_allclose(f0, predictor._track(mel).numpy(), rtol=1e-4)


@pytest.mark.parametrize("network", NETWORKS)
def test_signature_and_opset_are_as_documented(made, network):
    _, path = made[network]
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    assert [(one.domain, one.version) for one in graph.opset_import] == [("", 16)]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [(one.name, one.type, one.shape) for one in (*session.get_inputs(), *session.get_outputs())] == [
        ("audio", "tensor(float)", [1, "samples"]),
        ("threshold", "tensor(float)", [1]),
        ("f0", "tensor(float)", [1, "frames"]),
        ("salience", "tensor(float)", [1, "frames", 360]),
    ]


@pytest.mark.parametrize("network", NETWORKS)
def test_f0_of_a_pure_tone_is_equal_though_quiet_bins_hold_rounding_errors(made, network):
    predictor, path = made[network]
    tone = 0.5 * np.sin(np.arange(20000) / 10).astype(np.float32)
    wanted = predictor._track(predictor.log_mel(torch.from_numpy(tone)[None])).numpy()
    found = run(path, tone)[0]
    np.testing.assert_allclose(found, wanted[:, : found.shape[1]], rtol=1e-3)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("samples", [300, 30000, 99999])
def test_the_predictor_on_the_graph_gives_the_contour_of_the_one_on_the_network(made, network, samples):
    predictor, path = made[network]
    by_graph = GraphPredictor(44100, 512, "cpu", THRESHOLD, path)
    audio = song(samples, 44100)
    for found, wanted in zip(by_graph(audio), predictor(audio), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
    for curve in by_graph(np.zeros(samples, np.float32)):
        assert not curve.any()


def test_a_conversion_by_graphs_takes_the_predictors_graph_where_there_is_one(made):
    _, path = made["fcpe"]
    voices = Voices({"alto": 0}, 44100, 512, "mfcc", "left")
    assert isinstance(Listener(voices, torch.device("cpu"), path.parent, True).predictor("fcpe", 0.05), GraphPredictor)
    for onnx_wanted, key in ((False, "fcpe"), (True, "pm")):
        listener = Listener(voices, torch.device("cpu"), path.parent, onnx_wanted)
        assert not isinstance(listener.predictor(key, 0.05), GraphPredictor)


def test_the_same_file_gives_the_same_bytes(made, tmp_path):
    _, path = made["fcpe"]
    export_f0("fcpe", tmp_path / "again.onnx", pretrain=path.parent)
    assert path.read_bytes() == (tmp_path / "again.onnx").read_bytes()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("rmvpe", "'rmvpe' needs the file"),
        ("crepe", "'crepe' cannot be exported; rmvpe and fcpe can"),
        ("pm", "'pm' cannot be exported"),
        ("rmpve", "unknown F0 predictor 'rmpve'.*rmvpe"),
    ],
)
def test_what_cannot_be_exported_is_a_user_error_and_leaves_no_file(tmp_path, key, words):
    with pytest.raises(UserError, match=words):
        export_f0(key, tmp_path / "out" / "a.onnx", pretrain=tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_graph_of_one_length_is_refused_in_a_sentence_at_another(made, tmp_path):
    graph = onnx.load(made["fcpe"][1])
    next(one for one in graph.graph.input if one.name == "audio").type.tensor_type.shape.dim[1].dim_value = 16000
    onnx.save(graph, tmp_path / "fixed.onnx")
    predictor = GraphPredictor(16000, 160, "cpu", 0.05, tmp_path / "fixed.onnx")
    assert predictor(song(16000))[0].any()
    with pytest.raises(UserError, match="fixed.onnx cannot process.*16000.*; make it anew with onnx_export.py"):
        predictor(song(20000))


def test_another_programs_graph_of_the_same_name_is_refused(tmp_path):
    from tests.encoder_files import write_graph

    path = write_graph(tmp_path / "rmvpe.onnx", 360, names=("mel", "hidden"))
    with pytest.raises(UserError, match="rmvpe.onnx takes mel, not audio and threshold"):
        GraphPredictor(44100, 512, "cpu", 0.05, path)
