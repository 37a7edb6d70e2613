"""A host with MoeVoiceStudio's calls converts with what ``onnx_export.py`` writes, and gets the program's results."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

import export_index_for_onnx
import onnx_export
from cluster.centres import load_cluster_model, save_cluster_model
from cluster.index_file import write_indexes
from cluster.retrieval import build_index, load_feature_index
from diffusion.samplers import SAMPLERS
from diffusion.unit2mel import Unit2Mel, load_unit2mel
from modules.config import load_diffusion_config
from tests import moevoice_host
from tests.diffusion_files import MELS, write_diffusion
from tests.moevoice_models import DIFFUSION, facts, make_root, silence_random_nodes, song, speakers, write_synthesizer
from tests.pitch_files import write_fcpe, write_narrow_rmvpe
from vdecoder.mel_vocoder import MelVocoder, load_mel_vocoder

INDEX, CENTRES = "logs/44k/feature_and_index.pkl", "logs/44k/kmeans_10000.pt"
HOST = Path(moevoice_host.__file__)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    return make_root(tmp_path, monkeypatch)


def test_the_host_imports_nothing_of_the_program():
    imported = set()
    for node in ast.walk(ast.parse(HOST.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported == {"__future__", "json", "pathlib", "faiss", "numpy", "onnxruntime"}


# -- the JSON ---------------------------------------------------------------------------------------------------------


def export(change=lambda config: None, name: str = "alto", **model) -> None:
    """Write and export a checkpoint as ``write_synthesizer``."""
    folder = Path("checkpoints", name)
    write_synthesizer(folder, change, **model)
    assert onnx_export.main(["-n", name]) == 0
    silence_random_nodes(folder / f"{name}_SoVits.onnx")


def test_the_json_names_the_encoder_and_the_width_that_the_host_compares_with_its_units(root):
    export(gin_channels=4)
    assert moevoice_host.Synthesizer(root, "alto").sing(song(0.5), np.full(43, 220.0)).shape == (1, 1, 43 * 512)


def test_a_model_that_the_hosts_noise_does_not_fit_is_named_at_export(root, caplog):
    export(inter_channels=16)
    with pytest.raises(Exception, match="(?s)noise.*Got: 192 Expected: 16"):
        moevoice_host.Synthesizer(root, "alto").sing(song(0.5), np.full(43, 220.0))
    note = "MoeVoiceStudio cannot run this model: its noise has 192 channels, and the model's (inter_channels) 16"
    assert facts(root)["Note"] == note and note in caplog.text


@pytest.mark.parametrize("rows", [{"tenor": 1}, {"tenor": 1, "alto": 0}])
def test_a_place_in_characters_is_the_speaker_of_that_name(root, rows):
    """The host passes the place; the row of the speaker embedding is another."""
    audio, f0, sounds = song(0.5), np.full(43, 220.0), {}
    for name, change in (("rows", rows), ("ordered", {"alto": 0, "tenor": 1})):
        export(speakers(**change), name)
        synthesizer = moevoice_host.Synthesizer(root, name)
        for place, speaker in enumerate(facts(root, name)["Characters"]):
            sounds[name, speaker] = synthesizer.sing(audio, f0, place)
    for speaker in rows:
        found, wanted = sounds["rows", speaker], sounds["ordered", speaker]
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
    assert np.abs(sounds["ordered", "alto"] - sounds["ordered", "tenor"]).max() > 0.1


# -- timbre -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Index", "KMeans"])
def test_the_host_finds_the_timbre_of_a_place(root, kind):
    """The places differ from the rows, and the speakers' numbers of features from each other."""
    rows = {"tenor": 2, "alto": 0, "bass": 1}
    export(speakers(**rows))
    rng = np.random.default_rng(0)
    features = {name: rng.standard_normal((20 + 9 * row, 256)).astype(np.float32) for name, row in rows.items()}
    units = rng.standard_normal((5, 256)).astype(np.float32)
    if kind == "Index":
        write_indexes(INDEX, ((row, build_index(features[name])) for name, row in rows.items()), rows)
        index = load_feature_index(INDEX)
        wanted = {name: index.neighbours(torch.from_numpy(units), row).numpy() for name, row in rows.items()}
        assert export_index_for_onnx.main(["-n", "alto"]) == 0
    else:
        save_cluster_model(CENTRES, features)
        model = load_cluster_model(CENTRES)
        wanted = {name: model.nearest(torch.from_numpy(units), name).numpy() for name in rows}
        assert export_index_for_onnx.main(["-n", "alto", "--kmeans"]) == 0
    synthesizer = moevoice_host.Synthesizer(root, "alto")
    for place, name in enumerate(facts(root)["Characters"]):
        np.testing.assert_allclose(synthesizer.timbre.find(units, place), wanted[name], rtol=1e-4, atol=1e-5)
    audio, f0 = song(0.5), np.full(43, 220.0)
    without, own = (synthesizer.sing(audio, f0, 1, timbre_rate=rate) for rate in (0, 1))
    assert np.abs(without - own).max() > 0.01


# -- diffusion --------------------------------------------------------------------------------------------------------

SPEAKERS = {1: {"alto": 0}, 3: {"tenor": 0, "alto": 1, "bass": 2}}


def export_diffusion(spk: dict[str, int]) -> None:
    """Write and export a diffusion model and its vocoder."""
    write_diffusion(Path("checkpoints/alto"), spk=spk, **DIFFUSION)
    assert onnx_export.main(["-n", "alto", "--diffusion"]) == 0
    vocoder = Path("checkpoints/alto/vocoder/model")
    assert onnx_export.main(["--vocoder", "-m", str(vocoder), "-o", "hifigan/vocoder.onnx"]) == 0
    silence_random_nodes(Path("hifigan/vocoder.onnx"))
    Path("hifigan/MelOps.onnx").rename("MelOps.onnx")


def networks() -> tuple[Unit2Mel, MelVocoder]:
    config = load_diffusion_config("checkpoints/alto/config.yaml")
    vocoder = load_mel_vocoder(config.vocoder.ckpt)
    return load_unit2mel("checkpoints/alto/model_0.pt", config, vocoder.n_mels, "cpu"), vocoder


@pytest.mark.parametrize("count", SPEAKERS)
def test_the_host_samples_what_the_diffusion_model_samples(root, monkeypatch, count):
    Path("checkpoints/alto").mkdir()
    export_diffusion(SPEAKERS[count])
    network, vocoder = networks()
    audio, frames = song(0.5), 43
    f0 = np.linspace(200, 300, frames, dtype=np.float32)
    host = moevoice_host.Diffusion(root, "alto_diffusion")
    units = host.units(audio)[:, moevoice_host.places(frames, 24) - 1]
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((1, MELS, frames)).astype(np.float32))
    monkeypatch.setattr("diffusion.unit2mel.random_tensor", lambda *settings: noise)
    monkeypatch.setattr("vdecoder.source.random_tensor", lambda kind, shape, device, generator: torch.zeros(shape))
    volume = torch.from_numpy(moevoice_host.volume(audio, frames))
    for place in range(count):
        found = host.sing(audio, f0, place, steps=60, speedup=10)
        speaker = torch.tensor([[place]])
        curves = (torch.from_numpy(f0)[None, :, None], volume[None, :, None])
        mel = network.infer(torch.from_numpy(units), *curves, speaker, method="pndm", speedup=10)
        wanted = vocoder.synthesize(mel, torch.from_numpy(f0)[None])[None].numpy()
        assert np.abs(found - wanted).max() < 1e-3 * np.abs(wanted).max()
    if count > 1:
        mixed = host.sing(audio, f0, np.array([0.5, 0.5, 0.0]), steps=60)
        assert np.abs(mixed - found).max() > 1e-3 * np.abs(found).max()


def test_the_host_refines_the_synthesizers_sound_by_the_model_that_its_json_names(root, monkeypatch):
    """From the sound's mel the host takes the last steps of PLMS, without the noise that this program adds first."""
    export(speakers(**SPEAKERS[3]))
    export_diffusion(SPEAKERS[3])
    monkeypatch.setattr("vdecoder.source.random_tensor", lambda kind, shape, device, generator: torch.zeros(shape))
    audio, f0 = song(0.5), np.linspace(200, 300, 43, dtype=np.float32)
    synthesizer = moevoice_host.Synthesizer(root, "alto")
    sound = synthesizer.sing(audio, f0, 1)
    passed = {}

    def sing(host, audio, f0, speaker, steps, mel):
        passed.update(mel=mel, f0=torch.from_numpy(f0)[None], units=host.units(audio))
        return original(host, audio, f0, speaker, steps, mel)

    original = moevoice_host.Diffusion.sing
    monkeypatch.setattr(moevoice_host.Diffusion, "sing", sing)
    found = synthesizer.refine(audio, sound, f0, 20, speaker=1)
    network, vocoder = networks()
    mel, f0 = torch.from_numpy(passed["mel"]), passed["f0"]
    frames = mel.shape[2]
    assert 42 <= frames <= 43
    units = passed["units"][:, moevoice_host.places(frames, 24) - 1]
    volume = torch.from_numpy(moevoice_host.volume(audio, frames))[None, :, None]
    condition = network.condition(torch.from_numpy(units), f0[..., None], volume, torch.tensor([[1]]))

    def predict(x: torch.Tensor, step: float) -> torch.Tensor:
        return network.decoder.denoise_fn(x, torch.tensor([step]), condition)

    with torch.no_grad():
        x = network.decoder.normalize(mel.transpose(1, 2))
        x = SAMPLERS["pndm"].run(predict, x, network.decoder.schedule.head(20), 10, None)
        wanted = vocoder.synthesize(network.decoder.denormalize(x), f0)[None].numpy()
    assert np.abs(found - wanted).max() < 1e-3 * np.abs(wanted).max()


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
