"""The folder that ``onnx_export.py --host`` lays: the host's sound is the program's, and missing parts are named."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import inference_main
import onnx_export
from cluster.centres import save_cluster_model
from cluster.index_file import write_indexes
from cluster.retrieval import build_index
from inference import onnx_synthesizer
from inference.svc import Svc
from tests import moevoice_host
from tests.diffusion_files import write_diffusion
from tests.encoder_files import write_encoder_file
from tests.moevoice_models import DIFFUSION, facts, make_root, silence_random_nodes, song, speakers, write_synthesizer
from tests.pitch_files import write_fcpe, write_narrow_rmvpe

ROWS = {"tenor": 2, "alto": 0, "bass": 1}
LATER_KEYS = (  # that a config of version 4.0 lacks
    "vocoder_name", "speech_encoder", "speaker_embedding", "vol_embedding", "use_depthwise_conv",
    "flow_share_parameter", "use_automatic_f0_prediction", "use_transformer_flow", "n_layers_trans_flow",
    "n_flow_layer",
)  # fmt: skip
MODELS = {  # sizes, speakers and the kind of timbre
    "mix": ({}, ROWS, "Index"),
    "one": ({"vol_embedding": True}, {"tenor": 1}, "KMeans"),
    "mix_with_volume": ({"vol_embedding": True, "gin_channels": 4}, ROWS, "KMeans"),
    "version_4_0": ({"n_flow_layer": 4}, {"tenor": 1}, None),
    "tiny": ({"use_depthwise_conv": True, "flow_share_parameter": True}, ROWS, None),
    "snake": ({"vocoder_name": "nsf-snake-hifigan"}, ROWS, None),
}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    return make_root(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def laid(tmp_path_factory):
    """Return a function from a model's name to the host's folder, laid once, with a song beside it.

    The working folder has ``pretrain``, with weights of the pitch networks and a graph of the encoder.
    """
    patch = pytest.MonkeyPatch()
    pretrain = tmp_path_factory.mktemp("pretrain")
    write_encoder_file("vec256l9-onnx", pretrain)
    write_narrow_rmvpe(pretrain / "rmvpe.pt", patch)
    write_fcpe(pretrain / "fcpe.pt")

    @functools.cache
    def lay(name: str) -> Path:
        sizes, rows, timbre = MODELS[name]
        root = tmp_path_factory.mktemp(name)
        model, _ = write_synthesizer(root / "models" / name, speakers(**rows), **sizes)
        if name == "version_4_0":
            values = json.loads((model.parent / "config.json").read_text(encoding="utf-8"))
            for key in LATER_KEYS:
                values["model"].pop(key, None)
            (model.parent / "config.json").write_text(json.dumps(values), encoding="utf-8")
        rng = np.random.default_rng(0)
        features = {voice: rng.standard_normal((20 + 9 * row, 256)).astype(np.float32) for voice, row in rows.items()}
        if timbre == "Index":
            indexes = [(row, build_index(features[voice])) for voice, row in rows.items()]
            write_indexes(model.with_name("feature_and_index.pkl"), indexes, rows)
        elif timbre:
            save_cluster_model(model.with_name("kmeans_10000.pt"), features)
        if name == "mix":
            write_diffusion(model.parent, spk=rows, **DIFFUSION)
        folder = pretrain if name == "mix" else pretrain_of(lay("mix"))  # the others copy its graphs
        flags = ["--model", str(model), "--pretrain", str(folder)]
        assert onnx_export.main(["--host", str(root), "-n", name, *flags]) == 0
        silence_random_nodes(root / "Models" / name / f"{name}_SoVits.onnx")
        soundfile.write(root / "song.wav", song(1.3), moevoice_host.RATE, subtype="FLOAT")
        return root

    yield lay
    patch.undo()


def pretrain_of(root: Path) -> Path:
    """Return a folder with the graphs of encoder and pitch networks of a host's folder."""
    folder = root / "graphs"
    folder.mkdir(exist_ok=True)
    for path in (*root.glob("hubert/*"), *root.glob("F0Predictor/*")):
        shutil.copy(path, folder)
    return folder


def use_the_hosts_resamplers(monkeypatch, audio: np.ndarray) -> None:
    """Let the program resample sound, units, F0 and volume as the host does, and sample no noise."""

    def stretch(units: torch.Tensor, frames: int, mode: str) -> torch.Tensor:
        return units[:, moevoice_host.places(frames, units.shape[1]) - 1]

    def volume(wav: torch.Tensor, hop: int) -> torch.Tensor:
        return torch.from_numpy(moevoice_host.volume(audio, len(wav) // hop))

    def resample(wav: torch.Tensor, *rates: int) -> torch.Tensor:
        return torch.from_numpy(moevoice_host.resample(audio, moevoice_host.RATE, moevoice_host.NETWORK_RATE))

    for module in ("inference.feature_extractor", "modules.f0.graph"):
        monkeypatch.setattr(f"{module}.sinc_resample", resample)
    monkeypatch.setattr("inference.feature_extractor.stretch_units", stretch)
    monkeypatch.setattr("inference.feature_extractor.volume", volume)
    monkeypatch.setattr("modules.f0.graph.resize_nearest", moevoice_host.linear)


@pytest.fixture
def silent(monkeypatch):
    """Let the program pass zeros in place of the random numbers of the graph."""
    sample = onnx_synthesizer.sample_source

    def zeros(*settings) -> dict[str, torch.Tensor]:
        return {name: torch.zeros_like(value) for name, value in sample(*settings).items()}

    monkeypatch.setattr(onnx_synthesizer, "sample_source", zeros)


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the norm of the difference, divided by the norm."""
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def converter(root: Path, name: str, **settings) -> Svc:
    """Return what ``inference_main.py --onnx`` converts with, on the graphs of a host's folder."""
    graph, config = root / "Models" / name / f"{name}_SoVits.onnx", root / "models" / name / "config.json"
    return Svc(graph, config, "cpu", pretrain_folder=pretrain_of(root), **settings)


CASES = [  # model, speaker's place, share of the timbre
    *(("mix", 0, 0.0), ("mix", 1, 0.6), ("mix", 2, 0.6)),
    *(("one", 0, 0.0), ("one", 0, 0.6)),
    *(("mix_with_volume", 0, 0.6), ("mix_with_volume", 1, 0.0), ("mix_with_volume", 2, 0.6)),
    *(("version_4_0", 0, 0.0), ("tiny", 2, 0.0), ("snake", 1, 0.0)),
]


@pytest.mark.parametrize(("name", "place", "rate"), CASES)
def test_the_hosts_sound_is_the_programs_but_for_the_resamplers(laid, silent, monkeypatch, name, place, rate):
    root = laid(name)
    audio, _ = soundfile.read(root / "song.wav", dtype="float32")
    host = moevoice_host.Synthesizer(root, name)
    method, key, threshold = ("RMVPE", "rmvpe", 0.03) if place % 2 else ("MELPE", "fcpe", 0.05)
    f0 = moevoice_host.f0_of(root, method, audio, host.frames(len(audio)))
    found = host.sing(audio, f0, place, timbre_rate=rate)[0, 0]
    use_the_hosts_resamplers(monkeypatch, audio)
    retrieval = MODELS[name][2] == "Index"
    timbre = root / "models" / name / ("feature_and_index.pkl" if retrieval else "kmeans_10000.pt")
    svc = converter(root, name, cluster_model_path=timbre, feature_retrieval=retrieval)
    settings = {"noice_scale": 0, "f0_predictor": key, "cr_threshold": threshold, "cluster_infer_ratio": rate}
    speaker = facts(root, name)["Characters"][place]
    wanted, _, frames = svc.infer(speaker, 0, root / "song.wav", **settings)
    assert len(found) == len(wanted) == frames * 512
    assert np.abs(wanted.numpy()).max() > 0.01
    assert difference(found, wanted.numpy()) < 1e-3


def test_the_hosts_sound_is_that_of_inference_main(laid, silent, monkeypatch):
    """The script fills the last frame, so this song is of whole frames."""
    root = laid("tiny")
    audio = song(147 * 512 / 44100)
    soundfile.write(root / "whole.wav", audio, moevoice_host.RATE, subtype="FLOAT")
    host = moevoice_host.Synthesizer(root, "tiny")
    found = host.sing(audio, moevoice_host.f0_of(root, "MELPE", audio, host.frames(len(audio))), 1)[0, 0]
    pretrain_of(root).rename(root / "pretrain")
    monkeypatch.chdir(root)
    use_the_hosts_resamplers(monkeypatch, audio)
    graph, config = "Models/tiny/tiny_SoVits.onnx", "models/tiny/config.json"
    speaker = facts(root, "tiny")["Characters"][1]
    flags = ["-n", "whole.wav", "-s", speaker, "-f0p", "fcpe", "-ns", "0", "-p", "0", "-wf", "wav", "-o", "results"]
    assert inference_main.main(["--onnx", graph, "-c", config, *flags]) == 0
    (path,) = Path("results").iterdir()
    wanted, rate = soundfile.read(path, dtype="float32")
    assert rate == 44100 and len(wanted) == len(found) == 147 * 512
    assert difference(found, wanted) < 1e-3


def test_the_hosts_mix_of_speakers_is_the_programs(laid, silent, monkeypatch):
    root, shares = laid("mix"), {"tenor": 0.5, "alto": 0.2, "bass": 0.3}
    audio, _ = soundfile.read(root / "song.wav", dtype="float32")
    host = moevoice_host.Synthesizer(root, "mix")
    f0 = moevoice_host.f0_of(root, "MELPE", audio, host.frames(len(audio)))
    found = host.sing(audio, f0, np.array([shares[name] for name in facts(root, "mix")["Characters"]]))[0, 0]
    use_the_hosts_resamplers(monkeypatch, audio)
    by_row = [shares[name] for name, _ in sorted(ROWS.items(), key=lambda item: item[1])]
    mix = torch.tensor(by_row)[:, None].expand(-1, len(f0))
    wanted, _, _ = converter(root, "mix").infer(mix, 0, root / "song.wav", noice_scale=0, spk_mix=True)
    assert difference(found, wanted.numpy()) < 1e-3
    assert difference(host.sing(audio, f0, 0)[0, 0], wanted.numpy()) > 0.01


def test_the_host_converts_slice_by_slice_and_keeps_the_songs_length(laid):
    root = laid("one")
    audio, _ = soundfile.read(root / "song.wav", dtype="float32")
    host = moevoice_host.Synthesizer(root, "one")
    slices = [(0, 20000, True), (20000, 36001, False), (36001, len(audio), True)]
    found = host.song(audio, slices, "RMVPE")
    assert len(found) == sum((last - first) * 44100 // 48000 for first, last, _ in slices)
    middle = slice(20000 * 44100 // 48000, 20000 * 44100 // 48000 + 16001 * 44100 // 48000)
    assert not found[middle].any() and found[: middle.start].any() and found[middle.stop :].any()


def test_noise_reaches_the_graph(laid):
    root = laid("tiny")
    audio = song(0.4)
    host = moevoice_host.Synthesizer(root, "tiny")
    f0 = np.full(host.frames(len(audio)), 220.0, np.float32)
    assert difference(host.sing(audio, f0, noise_scale=0.4), host.sing(audio, f0)) > 0.01


def test_diffusion_and_shallow_diffusion_run_on_the_folder(laid):
    root = laid("mix")
    audio = song(0.5)
    synthesizer = moevoice_host.Synthesizer(root, "mix")
    f0 = moevoice_host.f0_of(root, "RMVPE", audio, synthesizer.frames(len(audio)))
    refined = synthesizer.refine(audio, synthesizer.sing(audio, f0, 2), f0, 20, speaker=2)
    deep = moevoice_host.Diffusion(root, "mix_diffusion").sing(audio, f0, 2, steps=60)
    assert facts(root, "mix_diffusion")["Characters"] == facts(root, "mix")["Characters"] == list(ROWS)
    for sound in (refined, deep):
        assert np.isfinite(sound).all() and sound.std() > 1e-3


# -- what --host says -------------------------------------------------------------------------------------------------


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_has_all_parts(laid):
    root = laid("mix")
    parts = {f"Models/mix/mix_{part}.onnx" for part in ("SoVits", "encoder", "denoise", "pred", "after")}
    parts |= {f"Models/mix/Index-{place}.index" for place in range(3)} | {
        "Models/mix.json",
        "Models/mix_diffusion.json",
    }
    shared = {"hubert/vec-256-layer-9.onnx", "hifigan/vocoder.onnx", "MelOps.onnx"}
    shared |= {"F0Predictor/RMVPE.onnx", "F0Predictor/MELPE.onnx"}
    found = files_of(root)
    assert {path for path in found if path.partition("/")[0] not in ("models", "graphs", "song.wav")} == parts | shared
    assert facts(root, "mix")["Cluster"] == "Index" and facts(root, "mix")["ShallowDiffusion"] == "mix_diffusion"
    assert facts(root, "mix_diffusion")["Hifigan"] == "vocoder"


def test_what_is_missing_is_named_and_the_rest_is_laid(root, caplog):
    write_synthesizer(Path("checkpoints/alto"))
    Path("pretrain").mkdir()
    shutil.copy("hubert/vec-256-layer-9.onnx", "pretrain")
    assert onnx_export.main(["--host", "out", "-n", "alto"]) == 0
    for clause in (
        "optional: no index or cluster centres (feature_and_index.pkl or kmeans_10000.pt in checkpoints/alto)",
        "optional: no diffusion model (model_<step>.pt and config.yaml in checkpoints/alto or "
        "checkpoints/alto/diffusion)",
        "optional: no vocoder, without which diffusion gives no sound (pretrain/nsf_hifigan/model; "
        "'python download_pretrain.py --vocoder' fetches it)",
        "optional: no pitch network RMVPE.onnx (pretrain/rmvpe.pt; "
        "'python download_pretrain.py --f0 rmvpe' fetches it)",
    ):
        assert clause in caplog.messages
    assert [line.partition(":")[0] for line in caplog.messages].count("optional") == 4 and "missing" not in caplog.text
    assert files_of(Path("out")) == {
        "Models/alto.json", "Models/alto/alto_SoVits.onnx", "hubert/vec-256-layer-9.onnx", "F0Predictor/MELPE.onnx",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("encoder", "size", "clause"),
    [
        ("vec256l9", 256, "missing: the speech encoder 'vec256l9', without which the host cannot convert"),
        ("mfcc", 72, "MoeVoiceStudio cannot run this model: the speech encoder 'mfcc' has no graph"),
        ("vec256l9", 99, "checkpoints/alto/config.json: the speech encoder vec256l9 gives 256"),
    ],
)
def test_without_an_encoder_the_exit_code_is_1_and_the_log_says_it_once(root, caplog, encoder, size, clause):
    write_synthesizer(Path("checkpoints/alto"), speech_encoder=encoder, ssl_dim=size)
    if encoder == "mfcc":
        write_diffusion(Path("checkpoints/alto"))  # of the same encoder
    Path("elsewhere").mkdir()
    Path("elsewhere/MELPE.onnx").write_bytes(b"a graph that is only copied")
    assert onnx_export.main(["--host", "out", "-n", "alto", "--pretrain", "elsewhere"]) == 1
    assert caplog.text.count(clause) == 1


def test_with_noise_of_another_width_the_exit_code_is_1(root, caplog):
    write_synthesizer(Path("checkpoints/alto"), inter_channels=16)
    assert onnx_export.main(["--host", "out", "-n", "alto", "--pretrain", "hubert"]) == 1
    assert Path("out/hubert/vec-256-layer-9.onnx").is_file()
    assert caplog.text.count("its noise has 192 channels, and the model's (inter_channels) 16") == 1


@pytest.mark.parametrize(
    ("timbre", "cluster", "kept"),
    [(None, "", set()), ("centres", "KMeans", {"KMeans.npy"}), ("index", "Index", {"Index-0.index", "Index-1.index"})],
)
def test_files_of_an_earlier_export_are_neither_named_nor_kept(root, caplog, timbre, cluster, kept):
    folder, rows = Path("checkpoints/alto"), {"alto": 0, "tenor": 1}
    write_synthesizer(folder, speakers(**rows))
    features = np.random.default_rng(0).standard_normal((20, 256)).astype(np.float32)
    if timbre == "centres":
        save_cluster_model(folder / "kmeans_10000.pt", dict.fromkeys(rows, features))
    elif timbre == "index":
        write_indexes(folder / "feature_and_index.pkl", [(row, build_index(features)) for row in (0, 1)], rows)
    models = Path("out/Models/alto")
    models.mkdir(parents=True)
    earlier = {f"Index-{place}.index" for place in range(3)} | {"KMeans.npy"}
    earlier |= {f"alto_{part}.onnx" for part in ("encoder", "denoise", "pred", "after")}
    others = {"notes.txt", "Index-own.index"}
    for name in earlier | others:
        (models / name).touch()
    Path("out/Models/alto_diffusion.json").touch()
    Path("hubert/MELPE.onnx").write_bytes(b"a graph that is only copied")
    assert onnx_export.main(["--host", "out", "-n", "alto", "--pretrain", "hubert"]) == 0
    assert files_of(models) == {"alto_SoVits.onnx", *others, *kept}
    assert files_of(models.parent) == {f"alto/{name}" for name in files_of(models)} | {"alto.json"}
    for name in earlier - kept:
        assert f"deleted out/Models/alto/{name}: an earlier export wrote it" in caplog.text
    values = facts(Path("out"))
    assert values["Cluster"] == cluster and "ShallowDiffusion" not in values


def test_a_refused_export_leaves_the_earlier_one(root, capsys):
    write_synthesizer(Path("checkpoints/alto"))
    Path("checkpoints/alto/model.pth").write_bytes(b"damaged")
    Path("out/Models/alto").mkdir(parents=True)
    Path("out/Models/alto/Index-0.index").touch()
    assert onnx_export.main(["--host", "out", "-n", "alto"]) == 2
    assert files_of(Path("out")) == {"Models/alto/Index-0.index"}


def test_both_kinds_of_timbre_are_told_apart_and_a_lacking_speaker_stops_the_export(root, caplog, capsys):
    folder = Path("checkpoints/alto")
    write_synthesizer(folder, speakers(alto=0, tenor=1))
    save_cluster_model(folder / "kmeans_10000.pt", {"alto": np.ones((3, 256), np.float32)})
    features = np.random.default_rng(0).standard_normal((20, 256)).astype(np.float32)
    host = ["--host", "out", "-n", "alto", "--pretrain", "hubert"]
    assert onnx_export.main(host) == 2
    assert "kmeans_10000.pt has no features of tenor" in capsys.readouterr().err and not Path("out").exists()
    index = folder / "feature_and_index.pkl"
    write_indexes(index, [(row, build_index(features)) for row in (0, 1)], {"alto": 0, "tenor": 1})
    Path("hubert/MELPE.onnx").write_bytes(b"a graph that is only copied")
    assert onnx_export.main(host) == 0
    assert "kmeans_10000.pt is left out" in caplog.text
    assert json.loads(Path("out/Models/alto.json").read_text(encoding="utf-8"))["Cluster"] == "Index"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--host", "out", "-n", "nobody"], "there is no checkpoints/nobody/model.pth"),
        (["--host", "out", "-n", "alto", "-o", "a.onnx"], "--out has no use with --host"),
        (["--host", "checkpoints/file", "-n", "alto"], "file is a file, and a folder is needed"),
    ],
)
def test_wrong_flags_are_refused_and_nothing_is_laid(root, capsys, flags, words):
    write_synthesizer(Path("checkpoints/alto"))
    Path("checkpoints/file").touch()
    before = files_of(root)
    assert onnx_export.main(flags) == 2
    assert words in capsys.readouterr().err
    assert files_of(root) == before
