"""Conversion with the synthesizer's graph: the same song as with the network, through the same slices and joints."""

from __future__ import annotations

import dataclasses
import functools
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import onnx_export
import spkmix
from inference import onnx_synthesizer
from inference.conversion import Conversion
from inference.feature_extractor import FeatureExtractor
from inference.svc import Svc
from inference.voices import Voices
from inference_main import main
from modules.config import load_config, save_config
from modules.console import UserError
from onnxexport.f0 import export_f0
from onnxexport.synthesizer import export_synthesizer
from tests.encoder_files import write_encoder_file, write_graph
from tests.onnx_files import onnx
from tests.test_svc import write_model, write_song
from tests.tiny import tiny_config
from vencoder.onnx_encoder import OnnxEncoder

MIX = {0: [[0, 0.5, 1, 0], [0.5, 1, 0, 0]], 1: [[0, 0.5, 0, 1], [0.5, 1, 1, 1]]}
HOP_256 = {"hop_length": 256, "upsample_rates": [16, 16]}
SPEAKERS = {"several": {"tenor": 1, "alto": 0}, "one": {"alto": 1}, "nameless": {}}


def write_pair(folder: Path, spk: dict[str, int], **model) -> tuple[Path, Path, Path]:
    """A checkpoint, its config and its graph."""
    config = tiny_config()
    config.spk = spk
    for key, value in {"ssl_dim": 72, **model}.items():
        setattr(config.model, key, value)
    folder.mkdir(parents=True, exist_ok=True)
    network, config_path = write_model(folder, config)
    export_synthesizer(network, config_path, folder / "G.onnx", folder / "G.json", "G")
    return network, config_path, folder / "G.onnx"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> dict[str, tuple[Path, Path, Path]]:
    folder = tmp_path_factory.mktemp("pairs")
    made = {name: write_pair(folder / name, spk) for name, spk in SPEAKERS.items()}
    made["loud"] = write_pair(folder / "loud", SPEAKERS["several"], vol_embedding=True)
    return made


@pytest.fixture(scope="module")
def converters(pairs):
    """For each model the converters (by network, by graph)."""

    @functools.cache
    def build(name: str) -> tuple[Svc, Svc]:
        network, config, graph = pairs[name]
        return Svc(network, config, "cpu"), Svc(graph, config, "cpu")

    return build


def song(svc: Svc, path: Path, spk="alto", **options) -> np.ndarray:
    return svc.slice_inference(path, spk, **options)


@pytest.fixture(scope="module")
def glide(tmp_path_factory) -> Path:
    return write_song(tmp_path_factory.mktemp("song") / "song.wav", 2.3, rate=32000)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("several", {}),
        ("several", {"spk": "tenor", "tran": -3, "noice_scale": 1.0, "seed": 7, "pad_seconds": 0.1}),
        ("several", {"clip_seconds": 0.7, "lg_num": 0.2, "loudness_envelope_adjustment": 0.3}),
        ("several", {"spk": MIX, "use_spk_mix": True, "clip_seconds": 1.0}),
        ("one", {}),
        ("one", {"spk": {1: [[0, 1, 1, 1]]}, "use_spk_mix": True}),
        ("nameless", {"spk": 1}),
        ("loud", {"spk": "tenor"}),
    ],
)
def test_the_song_is_the_networks_of_the_same_seed(converters, glide, model, options):
    by_network, by_graph = converters(model)
    wanted, found = song(by_network, glide, **options), song(by_graph, glide, **options)
    assert len(found) == len(wanted)
    assert np.abs(wanted).max() > 0.001
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("change", [{"spk": "tenor"}, {"seed": 1}, {"noice_scale": 2.0}, {"tran": 5}])
def test_speaker_seed_noise_and_pitch_reach_the_graph(converters, glide, change):
    _, by_graph = converters("several")
    assert np.abs(song(by_graph, glide, **change) - song(by_graph, glide)).max() > 1e-3


def test_a_graph_that_samples_in_another_order_gives_the_same_song_on_every_run(pairs, converters, glide, tmp_path):
    _, config, graph = pairs["several"]
    other = onnx.load(graph)
    (first,) = [node for node in other.graph.node if node.op_type == "RandomUniform"]
    first.op_type = "RandomNormal"
    onnx.save(other, tmp_path / "other.onnx")
    runs = [song(Svc(tmp_path / "other.onnx", config, "cpu"), glide, noice_scale=0) for _ in range(2)]
    np.testing.assert_array_equal(*runs)

    def distance(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.linalg.norm(one - other))

    by_network = [song(converters("several")[0], glide, noice_scale=0, seed=seed) for seed in (1, 2)]
    assert 0 < distance(runs[0], by_network[0]) < 2 * distance(*by_network)


def test_no_network_of_torch_is_used(tmp_path, glide, monkeypatch, caplog):
    _, config, graph = write_pair(tmp_path, SPEAKERS["several"], ssl_dim=256, speech_encoder="vec256l9")
    write_encoder_file("vec256l9-onnx", tmp_path)
    export_f0("fcpe", tmp_path / "MELPE.onnx", pretrain=tmp_path)

    def refusing(method):
        def call(module, *args, **options):
            assert type(module).__name__ == "Resample", "a network was built or ran"  # torchaudio's is no network
            return method(module, *args, **options)

        return call

    for name in ("__init__", "__call__"):
        monkeypatch.setattr(torch.nn.Module, name, refusing(getattr(torch.nn.Module, name)))
    with caplog.at_level("INFO"):
        assert song(Svc(graph, config, "cpu", pretrain_folder=tmp_path), glide, f0_predictor="fcpe").any()
    assert f"the speech encoder 'vec256l9' is the graph {tmp_path / 'vec-256-layer-9.onnx'}" in caplog.messages
    assert f"the F0 predictor 'fcpe' is the graph {tmp_path / 'MELPE.onnx'}" in caplog.messages
    (tmp_path / "MELPE.onnx").unlink()
    with caplog.at_level("INFO"), pytest.raises(AssertionError, match="a network was built or ran"):
        song(Svc(graph, config, "cpu", pretrain_folder=tmp_path), glide, f0_predictor="fcpe")
    assert "'fcpe' computes without" in caplog.text and "'python onnx_export.py --f0 fcpe' makes" in caplog.text


# -- the script -------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(pairs, tmp_path, monkeypatch) -> Path:
    """A working folder with an exported model and a song."""
    folder = tmp_path / "checkpoints" / "choir"
    folder.mkdir(parents=True)
    network, config, graph = pairs["several"]
    shutil.copy(config, folder / "config.json")
    shutil.copy(network, folder / "model.pth")
    shutil.copy(graph, folder / "choir_SoVits.onnx")
    (tmp_path / "raw").mkdir()
    write_song(tmp_path / "raw" / "a.wav", 0.5)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(spkmix, "spk_mix_map", MIX)
    return tmp_path


GRAPH = "checkpoints/choir/choir_SoVits.onnx"


def test_the_script_finds_the_config_beside_the_graph_and_writes_the_same_song_each_time(here):
    for folder in ("one", "two"):
        assert main(["--onnx", GRAPH, "-n", "a", "-s", "alto", "tenor", "-wf", "wav", "-o", folder]) == 0
    names = ["a_0key_alto_sovits_fcpe.wav", "a_0key_tenor_sovits_fcpe.wav"]
    assert sorted(path.name for path in (here / "one").iterdir()) == names
    for name in names:
        assert (here / "one" / name).read_bytes() == (here / "two" / name).read_bytes()
    assert main(["--onnx", GRAPH, "-n", "a", "-usm"]) == 0
    assert (here / "results" / "a_0key_spk_mix_sovits_fcpe.flac").is_file()


def test_a_graph_that_was_written_elsewhere_sings_when_its_config_is_named(here, capsys):
    assert onnx_export.main(["--model", "checkpoints/choir/model.pth", "--out", "alto/alto_SoVits.onnx"]) == 0
    convert = ["--onnx", "alto/alto_SoVits.onnx", "-n", "a", "-s", "alto"]
    assert main(convert) == 2
    assert "there is no alto/config.json" in capsys.readouterr().err
    assert main([*convert, "-c", "checkpoints/choir/config.json"]) == 0
    assert (here / "results" / "a_0key_alto_sovits_fcpe.flac").is_file()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--onnx", GRAPH, "-s", "atlo"], "no speaker 'atlo'; it has: alto, tenor"),
        (["--onnx", GRAPH, "-s", "alto", "-a"], "-a takes the pitch from a part.*ONNX graph lacks"),
        (["--onnx", GRAPH, "-s", "alto", "-od"], "--onnx is a synthesizer, which -od leaves out"),
        (["--onnx", GRAPH, "-s", "alto", "-m", "checkpoints/choir/model.pth"], "--onnx and -m each name"),
        (["--onnx", "nowhere.onnx", "-s", "alto"], "no graph nowhere.onnx.*onnx_export.py"),
        (["--onnx", "checkpoints/choir/model.pth", "-s", "alto"], "no graph checkpoints/choir/model.pth"),
        (["--onnx", GRAPH, "-s", "alto", "-c", "nowhere.json"], "nowhere.json"),
        (["--onnx", "fake.onnx", "-s", "alto", "-c", "checkpoints/choir/config.json"], "looks like a PyTorch"),
        (["--onnx", "encoder.onnx", "-s", "alto", "-c", "checkpoints/choir/config.json"], "its inputs are source"),
        (["--onnx", "cut.onnx", "-s", "alto", "-c", "checkpoints/choir/config.json"], "may be truncated"),
    ],
)
def test_wrong_input_is_one_sentence_and_nothing_is_written(here, capsys, argv, words):
    shutil.copy("checkpoints/choir/model.pth", "fake.onnx")
    write_graph(here / "encoder.onnx", 72)
    data = (here / GRAPH).read_bytes()
    (here / "cut.onnx").write_bytes(data[: len(data) // 2])
    assert main(["-n", "a", *argv]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert re.search(words, line)
    assert not (here / "results").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ssl_dim": 768, "speech_encoder": "vec768l12"}, "has 72 features a frame, its config 768"),
        ({"inter_channels": 16}, "has 8 latent channels, its config 16"),
        ({"vol_embedding": True}, "has 0 inputs of loudness, its config 1"),
        ({"n_speakers": 3}, "has 2 speakers, its config 3"),
        ({"sampling_rate": 48000}, "has 44100 Hz, its config 48000"),
        (HOP_256, "has 512 samples a frame, its config 256"),
    ],
)
def test_a_config_of_another_model_is_refused(pairs, tmp_path, change, words):
    _, config, graph = pairs["several"]
    with pytest.raises(UserError, match=words):
        Svc(graph, changed(config, tmp_path / "config.json", **change), "cpu")


def changed(config_path: Path, path: Path, **change) -> Path:
    """Write the config with other values in its model and data sections, and with ``n_speakers`` speakers."""
    config = load_config(config_path)
    for section in ("model", "data"):
        values = getattr(config, section)
        own = {key: value for key, value in change.items() if hasattr(values, key)}
        setattr(config, section, dataclasses.replace(values, **own))
    config.spk |= {f"voice {row}": row for row in range(2, change.get("n_speakers", 0))}
    save_config(config, path)
    return path


def test_a_mismatch_that_only_a_song_shows_is_one_sentence(pairs, glide, tmp_path):
    _, config, graph = pairs["one"]
    other = changed(config, tmp_path / "config.json", n_speakers=6)
    values = load_config(other)
    values.spk = {"bass": 5}
    save_config(values, other)
    with pytest.raises(UserError, match=r"G.onnx cannot process.*Gather.*; if its config .* with config_path"):
        song(Svc(graph, other, "cpu"), glide, "bass")


@pytest.mark.parametrize(
    ("op", "words"),
    [("RandomUniform", "cannot process its input"), ("RandomNormal", "gives 512 samples a frame, its config 256")],
)
def test_a_graph_without_its_hop_refuses_another_by_its_output(pairs, glide, tmp_path, op, words):
    _, config, path = pairs["several"]
    graph = onnx.load(path)
    del graph.metadata_props[:]
    (first,) = [node for node in graph.graph.node if node.op_type == "RandomUniform"]
    first.op_type = op
    onnx.save(graph, tmp_path / "other.onnx")
    svc = Svc(tmp_path / "other.onnx", changed(config, tmp_path / "config.json", **HOP_256), "cpu")
    with pytest.raises(UserError, match=f"other.onnx {words}.*name that model's config with config_path"):
        song(svc, glide)


def test_a_graph_of_one_speaker_at_a_time_refuses_a_mix_before_a_song_is_begun(pairs):
    _, config, graph = pairs["nameless"]
    conversion = Conversion({0: [[0, 1, 1, 0]], 1: [[0, 1, 0, 1]]}, use_spk_mix=True)
    with pytest.raises(UserError, match="G.onnx takes no mix of speakers"):
        Svc(graph, config, "cpu").check(conversion)


@pytest.mark.parametrize("key", ["vec256l9", "vec256l9-onnx"])
def test_the_encoders_graph_is_taken_where_there_is_one(tmp_path, key):
    write_encoder_file("vec256l9-onnx", tmp_path)
    voices = Voices({"alto": 0}, 44100, 512, key, "left")
    assert isinstance(FeatureExtractor(voices, torch.device("cpu"), tmp_path, onnx=True).encoder, OnnxEncoder)
    if key == "vec256l9":
        with pytest.raises(UserError, match="checkpoint_best_legacy_500.pt"):
            FeatureExtractor(voices, torch.device("cpu"), tmp_path)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_graph_decodes_in_blocks_and_gives_the_song_of_one_pass(tmp_path, glide, monkeypatch, precision):
    checkpoint, config, _ = write_pair(tmp_path, SPEAKERS["several"])
    graph = tmp_path / "again.onnx"
    export_synthesizer(checkpoint, config, graph, tmp_path / "again.json", "again", precision)
    svc = Svc(graph, config, "cpu")
    assert svc.synthesizer.decoder, "the decoder's layers were not found"
    monkeypatch.setattr(onnx_synthesizer, "BLOCK", 11)
    blocks = song(svc, glide)
    monkeypatch.setattr(onnx_synthesizer, "BLOCK", 100_000)
    whole = song(svc, glide)
    assert np.abs(blocks - whole).max() < (1e-5 if precision == "fp32" else 1e-2) * np.abs(whole).max()
    monkeypatch.setattr(onnx_synthesizer, "split_before_decoder", lambda model: None)
    np.testing.assert_allclose(song(Svc(graph, config, "cpu"), glide), whole, atol=1e-2 * np.abs(whole).max())
