"""Exported speech encoders equal the networks for sound of any length, and have the published signature."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.feature_extractor import FeatureExtractor
from inference.voices import Voices
from modules.console import UserError
from onnxexport.encoders import SOURCE_KEYS, export_encoder, graph_path
from tests.checkpoint_files import (
    contentvec_weights,
    dphubert_checkpoint,
    hubertsoft_weights,
    wavlm_checkpoint,
    whisper_checkpoint,
    write_fairseq_checkpoint,
)
from tests.encoder_files import PYTORCH_KEYS
from tests.onnx_files import onnx, onnxruntime
from vencoder import ENCODERS, build_encoder
from vencoder.onnx_encoder import OnnxEncoder

# One of each class is enough.
SMALL_WHISPERS = ("whisper-ppg-tiny.en", "whisper-ppg-small")
NETWORKS = [key for key in PYTORCH_KEYS if not ENCODERS[key].layer or "whisper" not in key or key in SMALL_WHISPERS]
TOLERANCE = 1e-4  # relative to the maximum feature
EXAMPLE = 16000  # samples; the length that every graph is traced with
LENGTHS = (400, 5000, 33333, 48000)
WIDTH = 128


def sound(samples: int) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(samples))


def run(path: Path, audio: torch.Tensor) -> np.ndarray:
    """Run a graph as any host does: (L,) -> (C, N)."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: audio.numpy()[None, None]})[0][0].T


def assert_same(path: Path, encoder, lengths=LENGTHS):
    assert EXAMPLE not in lengths
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for samples in lengths:
        wanted = encoder(sound(samples))[0].numpy()
        found = session.run(None, {"source": sound(samples).numpy()[None, None]})[0][0].T
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max(), samples


@pytest.fixture(scope="module")
def pretrain(tmp_path_factory) -> Path:
    """Weight files of small networks, and a table with their sizes: narrow, with a third of the layers."""
    folder = tmp_path_factory.mktemp("pretrain")
    patch = pytest.MonkeyPatch()
    for key in (*PYTORCH_KEYS, *SOURCE_KEYS):
        row = ENCODERS[key]
        size = row.ssl_dim if row.ssl_dim == 256 or key == "dphubert" else WIDTH
        patch.setitem(ENCODERS.rows, key, dataclasses.replace(row, ssl_dim=size, layer=row.layer and row.layer // 3))
    base, large = {"layers": 4, "width": WIDTH}, {"layers": 8, "width": WIDTH, "large": True}
    write_fairseq_checkpoint(folder / ENCODERS["vec768l12"].weight, contentvec_weights(**base))
    write_fairseq_checkpoint(folder / ENCODERS["cnhubertlarge"].weight, contentvec_weights(**large))
    for key, checkpoint in {
        "hubertsoft": hubertsoft_weights(layers=4),
        "whisper-ppg": whisper_checkpoint(width=WIDTH),
        "whisper-ppg-large": whisper_checkpoint(width=WIDTH, layers=2),
        "dphubert": dphubert_checkpoint(),
        "wavlmbase+": wavlm_checkpoint(**base),
    }.items():
        torch.save(checkpoint, folder / ENCODERS[key].weight)
    for key in SMALL_WHISPERS:
        checkpoint = whisper_checkpoint(width=WIDTH, layers=3)
        checkpoint["dims"]["n_vocab"] -= key.endswith(".en")
        torch.save(checkpoint, folder / ENCODERS[key].weight)
    yield folder
    patch.undo()


@pytest.fixture(scope="module")
def exported(pretrain):
    """Export the graph of a key once, under its default name."""

    def make(key: str) -> Path:
        path = graph_path(key, pretrain)
        if not path.exists():
            export_encoder(key, path, pretrain=pretrain)
        return path

    return make


@pytest.mark.parametrize("key", NETWORKS)
def test_a_graph_equals_its_network_at_every_length(exported, pretrain, key):
    assert_same(exported(key), build_encoder(key, folder=pretrain))


@pytest.mark.parametrize("key", SMALL_WHISPERS)
def test_a_small_whispers_graph_blends_its_windows_of_ten_seconds(exported, pretrain, key):
    assert_same(exported(key), build_encoder(key, folder=pretrain), (26 * 16000,))


@pytest.mark.parametrize("key", NETWORKS)
def test_every_graph_has_the_signature_and_the_opset_that_hosts_read(exported, key):
    graph = onnx.load(exported(key))
    onnx.checker.check_model(graph, full_check=True)
    assert [(one.domain, one.version) for one in graph.opset_import] == [("", 16)]
    session = onnxruntime.InferenceSession(exported(key), providers=["CPUExecutionProvider"])
    signature = [(one.name, one.type, one.shape) for one in (*session.get_inputs(), *session.get_outputs())]
    assert signature == [
        ("source", "tensor(float)", [1, 1, "samples"]),
        ("embed", "tensor(float)", [1, "frames", ENCODERS[key].ssl_dim]),
    ]


@pytest.mark.parametrize("key", list(SOURCE_KEYS))
def test_every_onnx_key_runs_on_a_file_that_the_user_made(exported, pretrain, key):
    """It has the file name of the table, and the layer and projection of the key."""
    assert exported(key) == pretrain / ENCODERS[key].weight
    row, source = ENCODERS[key], ENCODERS[SOURCE_KEYS[key]]
    network = source.load()(key, row.ssl_dim, row.layer, pretrain / source.weight)
    for samples in (100, 7777, 40000):  # the first is shorter than a window
        wanted = network(sound(samples))
        found = build_encoder(key, folder=pretrain)(sound(samples))
        torch.testing.assert_close(found, wanted, rtol=0, atol=float(TOLERANCE * wanted.abs().max()))


@pytest.mark.parametrize("key", NETWORKS)
def test_a_conversion_by_graphs_gets_the_networks_features(exported, pretrain, caplog, key):
    path = exported(key)
    with caplog.at_level("INFO"):
        voices = Voices({}, 44100, 512, key, "left")
        encoder = FeatureExtractor(voices, torch.device("cpu"), pretrain, onnx=True).encoder
    assert isinstance(encoder, OnnxEncoder)
    assert f"the speech encoder '{key}' is the graph {path}" in caplog.messages
    network = build_encoder(key, folder=pretrain)
    for samples in (350, 7777, 40000):
        wanted = network(sound(samples))
        torch.testing.assert_close(encoder(sound(samples)), wanted, rtol=0, atol=float(TOLERANCE * wanted.abs().max()))


def test_an_encoder_and_its_onnx_key_mean_one_file():
    assert graph_path("vec768l12") == graph_path("vec768l12-onnx") == Path("pretrain/vec-768-layer-12.onnx")
    assert graph_path("hubertsoft", "x") == Path("x/hubert-soft.onnx")
    assert graph_path("wavlmbase+") == Path("pretrain/WavLM-Base+.onnx")
    assert len({graph_path(key) for key in (*PYTORCH_KEYS, *SOURCE_KEYS)}) == len(PYTORCH_KEYS) + 2  # of ContentVec


def test_whisper_blends_the_windows_of_long_sound_in_the_graph(exported, pretrain):
    encoder = build_encoder("whisper-ppg", folder=pretrain)
    assert_same(exported("whisper-ppg"), encoder, lengths=(480_001, 1_130_000))


@pytest.mark.parametrize(
    ("key", "checkpoint"),
    [
        ("wavlmbase+", wavlm_checkpoint(layers=4, width=WIDTH)),
        ("dphubert", dphubert_checkpoint(heads=(2, 0, 1), inner=(8, 16, 0), remaining=([3, 7], [], [11]))),
    ],
)
def test_normalisation_and_gated_positions_are_in_the_graph(pretrain, tmp_path, key, checkpoint):
    settings = checkpoint.get("cfg", checkpoint.get("config"))
    settings["normalize" if key == "wavlmbase+" else "normalize_waveform"] = True
    torch.save(checkpoint, tmp_path / ENCODERS[key].weight)
    path = tmp_path / "graph.onnx"
    export_encoder(key, path, pretrain=tmp_path)
    assert_same(path, build_encoder(key, folder=tmp_path))
    louder = run(path, 10 * sound(9000))
    np.testing.assert_allclose(louder, run(path, sound(9000)), atol=1e-3 * np.abs(louder).max())


def test_the_same_file_gives_the_same_bytes(exported, pretrain, tmp_path):
    export_encoder("dphubert", tmp_path / "again.onnx", pretrain=pretrain)
    assert exported("dphubert").read_bytes() == (tmp_path / "again.onnx").read_bytes()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("vec768l21", "unknown speech encoder 'vec768l21'.*vec768l12"),
        ("mfcc", "'mfcc' has no network"),
        ("vec768l12", "'vec768l12' needs 'checkpoint_best_legacy_500.pt'"),
        ("vec256l12-onnx", "'vec256l12-onnx' needs 'checkpoint_best_legacy_500.pt'"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_sentence_and_leaves_nothing(tmp_path, key, words):
    with pytest.raises(UserError, match=words):
        export_encoder(key, tmp_path / "out" / "a.onnx", pretrain=tmp_path)
    assert not (tmp_path / "out").exists()
