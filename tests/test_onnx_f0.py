"""Exported F0 networks equal the predictors, for sound of any length, and have the names that hosts use."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.feature_extractor import FeatureExtractor
from inference.voices import Voices
from modules.console import UserError
from modules.f0 import build_f0_predictor
from modules.f0.graph import GraphPredictor
from onnxexport.f0 import export_f0, graph_path
from tests.onnx_files import onnx, onnxruntime
from tests.pitch_files import write_fcpe, write_narrow_rmvpe

EXAMPLE = 16000  # samples; the length that every graph is traced with
LENGTHS = (1024, 5000, 7777, 44321)
THRESHOLD = 0.3
NETWORKS = ("rmvpe", "fcpe", "bundled fcpe")


def song(samples: int, rate: int = 16000) -> np.ndarray:
    """A glide with overtones, and faint noise."""
    rng = np.random.default_rng(samples)
    time = np.arange(samples) / rate
    phase = 2 * np.pi * (180 * time + 30 * time**2)
    tones = sum(0.2 / k * np.sin(k * phase) for k in range(1, 8))
    return (tones + 1e-3 * rng.standard_normal(samples)).astype(np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """For each network its predictor and its graph; each weight file is in a folder of its own."""
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


def run(path: Path, audio: np.ndarray, *outputs: str, **threshold: float) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {name: np.array([value], np.float32) for name, value in (threshold or {"threshold": THRESHOLD}).items()}
    return session.run(list(outputs) or ["f0"], {"waveform": audio[None], **feeds})[0]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("samples", LENGTHS)
def test_f0_is_the_predictors(made, network, samples):
    assert samples != EXAMPLE
    predictor, path = made[network]
    with torch.inference_mode():
        mel = predictor.log_mel(torch.from_numpy(song(samples))[None])
        wanted = predictor._track(mel).numpy()
    assert wanted.shape == (1, samples // 160 + 1)
    np.testing.assert_allclose(run(path, song(samples)), wanted, rtol=1e-4)
    if network == "rmvpe":
        np.testing.assert_array_equal(run(path, song(samples), "uv"), wanted > 0)


@pytest.mark.parametrize(
    ("network", "file", "inputs", "outputs"),
    [("rmvpe", "RMVPE.onnx", ["waveform", "threshold"], ["f0", "uv"]), ("fcpe", "MELPE.onnx", ["waveform"], ["f0"])],
)
def test_names_and_shapes_are_those_that_moevoicestudio_uses(made, network, file, inputs, outputs):
    _, path = made[network]
    assert path.name == file
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    assert [(one.domain, one.version) for one in graph.opset_import] == [("", 16)]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    shapes = {"waveform": [1, "samples"], "threshold": [1]}
    assert [(one.name, one.type, one.shape) for one in session.get_inputs()] == [
        (name, "tensor(float)", shapes[name]) for name in inputs
    ]
    assert [(one.name, one.shape) for one in session.get_outputs()] == [(name, [1, "frames"]) for name in outputs]


def test_without_a_threshold_fcpe_has_the_programs_default(made):
    predictor, path = made["fcpe"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(["f0"], {"waveform": song(9000)[None]})[0]
    np.testing.assert_array_equal(found, run(path, song(9000), threshold=0.05))
    assert (run(path, song(9000), threshold=1.0) == 0).sum() > (found == 0).sum()


@pytest.mark.parametrize("network", NETWORKS)
def test_f0_of_a_pure_tone_is_equal_though_quiet_bins_hold_rounding_errors(made, network):
    predictor, path = made[network]
    tone = 0.5 * np.sin(np.arange(20000) / 10).astype(np.float32)
    wanted = predictor._track(predictor.log_mel(torch.from_numpy(tone)[None])).numpy()
    found = run(path, tone)
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


@pytest.mark.parametrize("network", ["rmvpe", "fcpe"])
def test_a_graph_of_an_earlier_version_is_used_unless_there_is_a_new_one(made, tmp_path, network):
    """Earlier versions wrote ``rmvpe.onnx`` and ``fcpe.onnx`` with the inputs audio and threshold."""
    predictor, path = made[network]
    earlier = write_earlier(path, tmp_path / f"{network}.onnx")
    voices = Voices({"alto": 0}, 44100, 512, "mfcc", "left")
    found = FeatureExtractor(voices, torch.device("cpu"), tmp_path, onnx=True).predictor(network, THRESHOLD)
    assert (type(found), found.weight) == (GraphPredictor, earlier)
    for curve, wanted in zip(found(song(30000, 44100)), predictor(song(30000, 44100)), strict=True):
        np.testing.assert_allclose(curve, wanted, rtol=1e-4)
    shutil.copy(path, tmp_path)
    both = FeatureExtractor(voices, torch.device("cpu"), tmp_path, onnx=True).predictor(network, THRESHOLD)
    assert both.weight == tmp_path / path.name


def write_earlier(path: Path, earlier: Path) -> Path:
    """Write a graph in the form of earlier versions: its sound is called audio, and it has no default threshold."""
    model = onnx.load(path)
    for name in [name for node in model.graph.node for name in node.input if name == "waveform"]:
        for node in model.graph.node:
            node.input[:] = ["audio" if one == name else one for one in node.input]
    model.graph.input[0].name = "audio"
    kept = [one for one in model.graph.initializer if one.name != "threshold"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.save(model, earlier)
    return earlier


def test_another_programs_graph_without_a_threshold_is_used_with_a_warning(made, tmp_path, caplog):
    model = onnx.load(made["fcpe"][1])
    del model.graph.input[1]  # the initializer stays, as a constant
    onnx.save(model, tmp_path / "MELPE.onnx")
    assert GraphPredictor(16000, 160, "cpu", 0.9, tmp_path / "MELPE.onnx")(song(16000))[0].any()
    assert "MELPE.onnx has a threshold of its own" in caplog.text


def test_a_conversion_by_graphs_takes_the_predictors_graph_where_there_is_one(made):
    _, path = made["fcpe"]
    voices = Voices({"alto": 0}, 44100, 512, "mfcc", "left")
    for with_onnx, key, by_graph in ((True, "fcpe", True), (False, "fcpe", False), (True, "pm", False)):
        predictor = FeatureExtractor(voices, torch.device("cpu"), path.parent, with_onnx).predictor(key, 0.05)
        assert isinstance(predictor, GraphPredictor) is by_graph


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
def test_what_cannot_be_exported_is_refused_in_one_sentence_and_leaves_nothing(tmp_path, key, words):
    with pytest.raises(UserError, match=words):
        export_f0(key, tmp_path / "out" / "a.onnx", pretrain=tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_graph_of_one_length_is_refused_in_one_sentence_at_another(made, tmp_path):
    graph = onnx.load(made["fcpe"][1])
    next(one for one in graph.graph.input if one.name == "waveform").type.tensor_type.shape.dim[1].dim_value = 16000
    onnx.save(graph, tmp_path / "fixed.onnx")
    predictor = GraphPredictor(16000, 160, "cpu", 0.05, tmp_path / "fixed.onnx")
    assert predictor(song(16000))[0].any()
    with pytest.raises(UserError, match="fixed.onnx cannot process.*16000.*; make it anew with onnx_export.py"):
        predictor(song(20000))


def test_another_programs_graph_of_the_same_name_is_refused(tmp_path):
    from tests.encoder_files import write_graph

    path = write_graph(tmp_path / "RMVPE.onnx", 360, names=("mel", "hidden"))
    with pytest.raises(UserError, match="RMVPE.onnx takes mel, not waveform and threshold"):
        GraphPredictor(44100, 512, "cpu", 0.05, path)
