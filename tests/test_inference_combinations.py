"""Combinations of a conversion's stages, on tiny networks: what each gets from the others, and what is refused."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import inference_main
import spkmix
from cluster.centres import save_cluster_model
from cluster.index_file import write_indexes
from cluster.retrieval import build_index
from diffusion.unit2mel import Unit2Mel
from inference.conversion import Conversion
from inference.svc import Svc
from modules.console import UserError
from tests.diffusion_files import write_diffusion
from tests.test_svc import RATE, write_model, write_song
from tests.tiny import tiny_config
from tests.vocoder_files import write_vocoder
from vdecoder.enhancer import Enhancer
from vits.synthesizer import Synthesizer

MIX = {0: [[0, 1, 1, 0]], 1: [[0, 1, 0, 1]]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working folder with trained models of every kind."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "logs" / "44k" / "diffusion").mkdir(parents=True)
    (folder / "raw").mkdir()
    write_model(folder / "logs" / "44k")
    write_diffusion(folder / "logs" / "44k" / "diffusion")
    write_vocoder(folder / "pretrain" / "nsf_hifigan")
    rng = np.random.default_rng(0)
    centres = {name: rng.standard_normal((5, 72)).astype(np.float32) for name in ("alto", "tenor")}
    save_cluster_model(folder / "logs" / "44k" / "kmeans_10000.pt", centres)
    indexes = [(row, build_index(rng.standard_normal((400, 72)).astype(np.float32))) for row in (0, 1)]
    write_indexes(folder / "logs" / "44k" / "feature_and_index.pkl", indexes)
    write_song(folder / "raw" / "a.wav", 0.3)
    return folder


@pytest.fixture(scope="module")
def loaded():
    """A cached ``Svc``: each converter is built once."""
    return functools.cache(Svc)


@pytest.fixture
def here(folder, loaded, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(spkmix, "spk_mix_map", MIX)
    monkeypatch.setattr("inference.svc.Svc", loaded)
    return folder


# -- what the stages pass to each other -------------------------------------------------------------------------------


@dataclass
class Run:
    """One conversion: its audio, and the arguments and results of each network that took part."""

    audio: np.ndarray
    inputs: dict[str, Mapping[str, Any]]
    outputs: dict[str, Any]


NETWORKS = {"synthesizer": (Synthesizer, "infer"), "diffusion": (Unit2Mel, "infer"), "enhancer": (Enhancer, "enhance")}


@pytest.fixture
def run(here, tmp_path):
    """run(*flags) -> Run, of the song a.wav by the speaker tenor or, with -usm, the mix."""

    def convert(*flags: str) -> Run:
        inputs, outputs = {}, {}
        with pytest.MonkeyPatch.context() as patched:
            for name, (kind, method) in NETWORKS.items():
                patched.setattr(kind, method, recorded(getattr(kind, method), name, inputs, outputs))
            speaker = [] if "-usm" in flags else ["-s", "tenor"]
            settings = ["-f0p", "pm", "-ks", "20", "-wf", "wav", "-o", str(tmp_path), *speaker]
            assert inference_main.main(["-n", "a", *settings, *flags]) == 0
        (path,) = tmp_path.iterdir()
        audio, rate = soundfile.read(path)
        path.unlink()
        assert (len(audio), rate) == (int(0.3 * RATE), RATE)
        return Run(audio, inputs, outputs)

    return convert


def recorded(function, name: str, inputs: dict, outputs: dict):
    def call(self, *args, **named):
        inputs[name] = inspect.signature(function).bind(self, *args, **named).arguments
        outputs[name] = function(self, *args, **named)
        return outputs[name]

    return call


def test_diffusion_gets_the_content_that_the_synthesizer_got_blended_by_clusters(run):
    plain, blended = run("-shd"), run("-shd", "-cr", "0.5")
    for one in (plain, blended):
        assert torch.equal(one.inputs["diffusion"]["units"], one.inputs["synthesizer"]["c"].transpose(1, 2))
    assert not torch.allclose(blended.inputs["diffusion"]["units"], plain.inputs["diffusion"]["units"])


def test_diffusion_without_synthesizer_gets_the_blended_content_too(run):
    only, after = run("-od", "-cr", "0.5"), run("-shd", "-cr", "0.5")
    assert only.inputs.keys() == {"diffusion"} and only.inputs["diffusion"]["mel"] is None
    assert torch.equal(only.inputs["diffusion"]["units"], after.inputs["diffusion"]["units"])


def test_a_second_encoding_replaces_blended_content(run):
    first, second = run("-shd", "-cr", "0.5"), run("-shd", "-cr", "0.5", "-se")
    assert torch.equal(first.inputs["synthesizer"]["c"], second.inputs["synthesizer"]["c"])
    assert not torch.allclose(first.inputs["diffusion"]["units"], second.inputs["diffusion"]["units"])


@pytest.mark.parametrize("part", ["diffusion", "enhancer"])
def test_what_comes_after_the_synthesizer_gets_the_pitch_that_the_model_predicts(run, part):
    result = run({"diffusion": "-shd", "enhancer": "-eh"}[part], "-a")
    _, chosen = result.outputs["synthesizer"]
    assert result.inputs["synthesizer"]["predict_f0"] is True
    assert torch.equal(result.inputs[part]["f0"].reshape(1, -1), chosen)
    assert not torch.allclose(chosen, result.inputs["synthesizer"]["f0"])


@pytest.mark.parametrize("flag", ["-shd", "-od"])
def test_diffusion_gets_the_mix_of_every_frame(run, flag):
    result = run("-usm", flag)
    weights = result.inputs["diffusion"]["speaker"]
    assert weights.shape == (result.inputs["diffusion"]["units"].shape[1], 2)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(weights)))
    assert weights[0, 0] > 0.9 and weights[-1, 1] > 0.9  # from the first speaker to the second
    if flag == "-shd":
        assert torch.equal(result.inputs["synthesizer"]["speaker"], weights)


@pytest.mark.parametrize("part", ["-shd", "-od", "-eh"])
def test_the_songs_envelope_is_imposed_on_the_last_stages_output(run, part):
    free, half, bound = (run(part, "-lea", share).audio for share in ("1", "0.5", "0"))
    assert np.abs(free - bound).max() > 1e-3
    inner = slice(RATE // 20, -RATE // 20)
    np.testing.assert_allclose(half[inner] ** 2, (free * bound)[inner], atol=1e-3)  # half of the decibels


@pytest.mark.parametrize(
    ("flags", "same"),
    [
        (["-shd", "-eh", "-eak", "4"], ["-shd"]),
        (["-shd", "-od"], ["-od"]),
        (["-usm", "-cr", "0.5"], ["-usm"]),
    ],
)
def test_what_is_left_out_changes_nothing(run, flags, same):
    np.testing.assert_array_equal(run(*flags).audio, run(*same).audio)


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["-s", "tenor", "-shd", "-cr", "0.5"], "a_0key_tenor_0.5_sovdiff_fcpe.wav"),
        (["-s", "tenor", "-od"], "a_0key_tenor_diff_fcpe.wav"),
        (["-usm", "-a", "-eh"], "a_auto_spk_mix_sovits_fcpe.wav"),
    ],
)
def test_the_result_is_named_by_its_pipeline(here, tmp_path, flags, name):
    assert inference_main.main(["-n", "a", "-wf", "wav", "-ks", "20", "-o", str(tmp_path), *flags]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-od", "-eh"], "-eh enhances the synthesizer's output, which -od leaves out"),
        (["-od", "-a"], "-a takes the pitch from the synthesizer, which -od leaves out"),
        (["-se"], "-se encodes the synthesizer's output"),
        (["-se", "-od"], "-se encodes the synthesizer's output"),
        (["-se", "-od", "-shd"], "-se encodes the synthesizer's output"),
    ],
)
def test_stages_that_exclude_each_other_are_refused_with_the_reason(here, tmp_path, capsys, flags, words):
    assert inference_main.main(["-n", "a", "-s", "tenor", "-o", str(tmp_path), *flags]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# -- each stage has an effect, and the same each time -----------------------------------------------------------------


def sing(folder: Path, tmp_path: Path, *flags: str) -> np.ndarray:
    assert inference_main.main(["-n", "a", "-wf", "wav", "-o", str(tmp_path), "-s", "tenor", *flags]) == 0
    (path,) = tmp_path.iterdir()
    audio, _ = soundfile.read(path)
    path.unlink()
    return audio


@pytest.mark.parametrize(
    ("without", "flags"),
    [
        ([], ["-shd", "-ks", "20"]),
        (["-shd", "-ks", "20"], ["-shd", "-ks", "40"]),
        (["-shd", "-ks", "20"], ["-shd", "-ks", "20", "-se"]),
        (["-shd", "-ks", "20"], ["-shd", "-ks", "20", "--diffusion_method", "ddim"]),
        (["-shd", "-ks", "20"], ["-shd", "-ks", "20", "--diffusion_speedup", "4"]),
        (["-shd", "-ks", "20"], ["-od"]),
        ([], ["-eh"]),
        (["-eh"], ["-eh", "-eak", "5"]),
        ([], ["-cr", "0.5"]),
        (["-cr", "0.5"], ["-cr", "1"]),
        (["-cr", "0.5"], ["-cr", "0.5", "-fr"]),
        (["-cr", "0.5", "-fr"], ["-cr", "0.5", "-fr", "--nprobe", "9"]),
        (["-od"], ["-od", "-cr", "0.5"]),
        ([], ["-lea", "0"]),
    ],
)
def test_a_flag_changes_the_sound_and_the_same_command_gives_the_same_song(here, tmp_path, without, flags):
    torch.manual_seed(len(flags))  # nothing uses this state
    first = sing(here, tmp_path, *flags)
    assert np.abs(first - sing(here, tmp_path, *without)).max() > 1e-4
    np.testing.assert_array_equal(sing(here, tmp_path, *flags), first)


@pytest.mark.parametrize("flags", [["-shd", "-ks", "20"], ["-od"], ["-eh"]])
def test_another_seed_is_another_song(here, tmp_path, flags):
    first, second = (sing(here, tmp_path, "-ns", "0", *flags, "--seed", seed) for seed in "12")
    assert np.abs(first - second).max() > 1e-5


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-shd", "-eh"], "the enhancer (-eh) is left out"),
        (["-shd", "-od"], "-shd has no effect"),
        (["-usm", "-cr", "0.5"], "-cr is left out"),
        (["-fr"], "-fr has no effect"),
    ],
)
def test_what_is_left_out_is_logged(here, loaded, tmp_path, caplog, flags, words):
    loaded.cache_clear()
    assert inference_main.main(["-n", "a", "-s", "tenor", "-ks", "20", "-o", str(tmp_path), *flags]) == 0
    assert [words in message for message in caplog.messages].count(True) == 1


def test_only_diffusion_needs_no_voice_model(here, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    folder = tmp_path / "logs" / "44k" / "diffusion"
    folder.mkdir(parents=True)
    write_diffusion(folder)
    song = str(write_song(tmp_path / "a.wav", 0.3))
    monkeypatch.chdir(tmp_path)
    assert inference_main.main(["-n", song, "-s", "alto", "-od", "-o", "out"]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 1


# -- what is refused before a song is converted -----------------------------------------------------------------------


@pytest.fixture
def shallow(tmp_path) -> list[str]:
    """Flags for a diffusion model that was trained to a depth of 30."""
    model, config = write_diffusion(tmp_path, k_step_max=30)
    return ["-dm", str(model), "-dc", str(config)]


def refused(folder: Path, capsys, *flags: str) -> str:
    before = sorted((folder / "results").glob("*"))
    assert inference_main.main(["-n", "a", "-s", "alto", *flags]) == 2
    assert sorted((folder / "results").glob("*")) == before
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "a.wav" not in line  # no song was started
    return line


def test_a_shallow_model_can_neither_replace_the_synthesizer_nor_go_deeper(here, shallow, capsys):
    assert "use -shd in place of -od" in refused(here, capsys, "-od", *shallow)
    assert "use 30" in refused(here, capsys, "-shd", "-ks", "40", *shallow)
    assert inference_main.main(["-n", "a", "-s", "alto", "-shd", "-ks", "30", "-o", "deep", *shallow]) == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-shd", "-dm", "nowhere.pt"], "there is no diffusion model nowhere.pt"),
        (["-od", "-dc", "nowhere.yaml"], "there is no nowhere.yaml"),
        (["-shd", "-dm", "logs/44k/G_1.pth", "-dc", "logs/44k/diffusion/config.yaml"], "is no diffusion model"),
        (["-shd", "-ks", "11"], "leaves dpm-solver++ 1 of the 2"),
        (["-shd", "-ks", "20", "--diffusion_method", "dpm"], "'dpm' is no sampling method"),
        (["-shd", "-ks", "20", "--diffusion_speedup", "0"], "the speedup is 0"),
        (["-eak", "3"], "-eak is the enhancer's key; it needs -eh"),
        (["--diffusion_method", "ddim"], "give -shd or -od too"),
        (["--diffusion_speedup", "5"], "give -shd or -od too"),
        (["--nprobe", "4"], "give -fr and -cr too"),
        (["-cr", "0.5", "-cm", "nowhere.pt"], "there is no file nowhere.pt"),
        (["-cr", "0.5", "-fr", "-cm", "nowhere.pkl"], "nowhere.pkl"),
        (["-cr", "0.5", "-fr", "--nprobe", "0"], "--nprobe is 0"),
        (["-cr", "0.5", "-cm", "logs/44k"], "there is no file logs/44k"),
        (["-cr", "0.5", "-fr", "-cm", "logs/44k"], "there is no file logs/44k"),
        (["-cr", "0.5", "-fr", "-cm", "logs/44k/kmeans_10000.pt"], "kmeans_10000.pt is no feature index"),
        (["-cr", "0.5", "-cm", "logs/44k/feature_and_index.pkl"], "feature_and_index.pkl holds no cluster centres but"),
        (["-shd", "-dc", "logs/44k/config.json"], "logs/44k/config.json is the main model's configuration"),
        (["--seed", "-1"], "--seed is -1; it must be from 0 to 4294967295"),
        (["--seed", str(2**64)], "--seed"),
        (["-cr", "2"], "-cr"),
        (["-ks", "0"], "-ks"),
    ],
)
def test_what_would_fail_for_every_song_is_reported_once(here, capsys, flags, words):
    assert words in refused(here, capsys, *flags).replace("\\", "/")


def test_a_vocoder_or_enhancer_without_its_file_is_refused_by_name(here, tmp_path, capsys, monkeypatch, loaded):
    loaded.cache_clear()
    model, config = write_diffusion(tmp_path)
    (tmp_path / "vocoder" / "model").unlink()
    assert "vocoder" in refused(here, capsys, "-shd", "-dm", str(model), "-dc", str(config))
    (here / "pretrain" / "nsf_hifigan" / "model").rename(here / "pretrain" / "aside")
    try:
        assert "pretrain/nsf_hifigan" in refused(here, capsys, "-eh").replace("\\", "/")
    finally:
        (here / "pretrain" / "aside").rename(here / "pretrain" / "nsf_hifigan" / "model")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"encoder": "vec256l9", "encoder_out_channels": 256}}, "speech encoder vec256l9"),
        ({"data": {"sampling_rate": 48000}}, "48000"),
        ({"spk": {"alto": 0, "tenor": 1, "bass": 2}, "n_spk": 2}, None),
        ({"spk": {"alto": 5, "tenor": 1}}, "has 2 speakers, and none called 'alto'"),
    ],
)
def test_two_models_of_different_data_are_refused(here, tmp_path, capsys, changes, words):
    model, config = write_diffusion(tmp_path, **changes)
    flags = ["-shd", "-ks", "20", "-dm", str(model), "-dc", str(config)]
    if words is None:
        assert inference_main.main(["-n", "a", "-s", "alto", "-o", str(tmp_path / "out"), *flags]) == 0
    else:
        assert words in refused(here, capsys, *flags)


def test_clusters_of_another_size_or_without_the_speaker_are_refused_by_name(here, tmp_path, capsys):
    for name, size, words in [("alto", 8, "features of size 8"), ("bass", 72, "no centres of 'alto'")]:
        save_cluster_model(tmp_path / f"{name}.pt", {name: np.ones((3, size), np.float32)})
        assert words in refused(here, capsys, "-cr", "0.5", "-cm", str(tmp_path / f"{name}.pt"))


# -- what the stages get ----------------------------------------------------------------------------------------------


def test_speakers_of_the_diffusion_model_are_those_of_the_same_name(here, tmp_path):
    model, config = write_diffusion(tmp_path, spk={"tenor": 0, "alto": 1})
    files = here / "logs/44k/G_1.pth", here / "logs/44k/config.json", "cpu", "", False
    svc = Svc(*files, model, config, True)
    assert svc.refiner.speaker(torch.tensor([[0]]), svc.voices).tolist() == [[1]]
    weights = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    assert torch.equal(svc.refiner.speaker(weights, svc.voices), weights.flip(1))


def test_weights_of_speakers_that_share_a_row_of_the_diffusion_model_add_up(here, tmp_path):
    """It does not have the tenor, who gets the alto's row as he has this row in the synthesizer."""
    model, config = write_diffusion(tmp_path, spk={"bass": 0, "alto": 1})
    svc = Svc(here / "logs/44k/G_1.pth", here / "logs/44k/config.json", "cpu", "", False, model, config, True)
    weights = svc.refiner.speaker(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), svc.voices)
    torch.testing.assert_close(weights, torch.tensor([[0.0, 1.0], [0.0, 1.0]]))


def test_a_diffusion_model_of_one_speaker_is_used_for_all(here, tmp_path):
    model, config = write_diffusion(tmp_path, spk={"nyaru": 0})
    flags = ["-shd", "-ks", "20", "-dm", str(model), "-dc", str(config), "-o", str(tmp_path / "out")]
    assert inference_main.main(["-n", "a", "-s", "tenor", *flags]) == 0
    assert inference_main.main(["-n", "a", "-usm", *flags]) == 0


@pytest.mark.parametrize("vol_embedding", [False, True])
def test_the_diffusion_gets_the_songs_loudness_if_the_synthesizer_did(here, tmp_path, monkeypatch, vol_embedding):
    config = tiny_config()
    config.model.ssl_dim, config.model.vol_embedding = 72, vol_embedding
    diffusion = here / "logs/44k/diffusion"
    svc = Svc(
        *write_model(tmp_path, config), "cpu", "", False, diffusion / "model_0.pt", diffusion / "config.yaml", True
    )
    wav, volumes = torch.sin(torch.arange(RATE // 4) * 0.03) * 0.4, []
    infer = svc.refiner.model.infer
    monkeypatch.setattr(svc.refiner.model, "infer", lambda *args: volumes.append(args[2]) or infer(*args))
    svc.convert_wav(wav, Conversion("alto", k_step=20))
    song = pytest.approx(0.4 / 2**0.5, rel=0.1)
    assert (volumes[0].median().item() == song) is vol_embedding


def test_a_second_encoding_encodes_the_synthesizers_output(here, monkeypatch):
    diffusion = here / "logs/44k/diffusion"
    files = here / "logs/44k/G_1.pth", here / "logs/44k/config.json", "cpu", "", False
    svc = Svc(*files, diffusion / "model_0.pt", diffusion / "config.yaml", True)
    encoded = []
    encode = svc.feature_extractor._encode
    monkeypatch.setattr(svc.feature_extractor, "_encode", lambda wav, *rest: encoded.append(wav) or encode(wav, *rest))
    wav = torch.sin(torch.arange(RATE // 4) * 0.03) * 0.5
    for second in (False, True):
        svc.convert_wav(wav, Conversion("alto", k_step=20, second_encoding=second))
    assert len(encoded) == 3
    assert torch.equal(encoded[1], wav)
    assert len(encoded[2]) == len(wav) // 512 * 512
    assert not torch.equal(encoded[2], wav[: len(encoded[2])])


def test_sampling_has_a_progress_bar(here, monkeypatch):
    files = (here / "logs/44k/diffusion" / name for name in ("model_0.pt", "config.yaml"))
    way = {"diffusion_method": "ddim", "diffusion_speedup": 5}
    svc = Svc(None, None, "cpu", "", False, *files, only_diffusion=True, **way)
    bars = []

    class Bar:
        total, n = None, 0

        def __init__(self, **settings):
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def update(self, more):
            self.n += more

    monkeypatch.setattr("modules.console.progress", Bar)
    svc.convert_wav(torch.sin(torch.arange(RATE // 4) * 0.03) * 0.5, Conversion("alto"))
    assert [(bar.n, bar.total) for bar in bars] == [(11, 11)]


def test_the_published_constructor_refuses_what_the_script_does(tmp_path):
    with pytest.raises(UserError, match="nsf_hifigan_enhance"):
        Svc(None, None, "cpu", "", True, only_diffusion=True)
    model, config = write_model(tmp_path)
    with pytest.raises(UserError, match="second_encoding"):
        Svc(model, config, "cpu").check(Conversion("alto", second_encoding=True))
