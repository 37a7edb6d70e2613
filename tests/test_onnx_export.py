"""The scripts that write ONNX files and indexes: published paths, one sentence for mistakes, reproducible bytes."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch

import export_index_for_onnx
import onnx_export
from cluster.centres import save_cluster_model
from cluster.index_file import write_indexes
from cluster.retrieval import build_index
from modules.config import load_config, save_config
from onnxexport import graph as graph_module
from onnxexport.graph import Graph, write_graph
from onnxexport.metadata import encoder_flaw, synthesizer_metadata, timbre_metadata
from onnxexport.synthesizer import synthesizer_graph
from tests.diffusion_files import write_diffusion
from tests.encoder_files import write_encoder_file
from tests.generator_files import config_of, write_generator_file
from tests.pitch_files import write_fcpe
from tests.vocoder_files import write_vocoder
from vits.synthesizer import Synthesizer

ROOT = Path(__file__).parents[1]


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_generator_file(tmp_path / "checkpoints" / "alto" / "model.pth", config_of())
    return tmp_path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# -- the synthesizer --------------------------------------------------------------------------------------------------


def test_the_published_flag_reads_and_writes_the_published_paths(work, caplog):
    before = files(work)
    assert onnx_export.main(["-n", "alto"]) == 0
    assert files(work) - before == {"checkpoints/alto/alto_SoVits.onnx", "checkpoints/alto.json"}
    text = Path("checkpoints/alto.json").read_text(encoding="utf-8")
    note = "MoeVoiceStudio cannot run this model: its noise has 192 channels, and the model's (inter_channels) 8"
    assert note in caplog.text
    assert text.startswith('{\n    "Folder": "alto",\n')
    assert json.loads(text) == {
        "Folder": "alto",
        "Name": "alto",
        "Type": "SoVits",
        "Rate": 44100,
        "Hop": 512,
        "Hubert": "mfcc",
        "SoVits4": True,
        "SoVits3": False,
        "CharaMix": True,
        "Volume": False,
        "HiddenSize": 8,
        "Characters": ["alto", "tenor"],
        "Cluster": "",
        "Note": note,
    }


@pytest.mark.parametrize(
    ("encoder", "size", "graph"),
    [
        ("vec768l12", 768, "vec-768-layer-12"),
        ("vec256l9", 256, "vec-256-layer-9"),
        ("vec768l12", 256, "vec-256-layer-9"),  # as in the config of a 4.0 model
        ("vec768l9-onnx", 768, "vec-768-layer-9"),
        ("hubertsoft", 256, "hubert-soft"),
        ("whisper-ppg", 1024, "medium"),
        ("wavlmbase+", 768, "WavLM-Base+"),
    ],
)
def test_the_json_names_the_encoders_graph_and_the_width_of_its_units(encoder, size, graph):
    config = config_of(inter_channels=192, vol_embedding=True, speech_encoder=encoder, ssl_dim=size)
    config.spk = {"声": 0}
    values = synthesizer_metadata("name", config, "config.json", {})
    assert [values[key] for key in ("Hubert", "HiddenSize", "CharaMix", "Volume", "Characters")] == [
        graph, size, False, True, ["声"],
    ]  # fmt: skip
    assert "Note" not in values
    assert encoder_flaw(encoder, size, "config.json") is None


def test_an_encoder_without_a_graph_for_the_host_is_named_by_its_key():
    assert synthesizer_metadata("name", config_of(ssl_dim=72), "config.json", {})["Hubert"] == "mfcc"
    assert "the speech encoder 'mfcc' has no graph" in encoder_flaw("mfcc", 72, "config.json")
    assert synthesizer_metadata("name", config_of(speech_encoder="own"), "config.json", {})["Hubert"] == "own"
    flaw = encoder_flaw("own", 72, "config.json")
    assert "unknown speech encoder 'own'" in flaw and "Hubert has to be set by hand" in flaw


def test_explicit_flags_name_other_paths(work):
    model = Path("checkpoints/alto/model.pth").rename("G_8000.pth")
    config = Path("checkpoints/alto/config.json").rename("other.json")
    before = files(work)
    explicit = ["--model", str(model), "--config", str(config)]
    assert onnx_export.main([*explicit, "--out", "out/bass_SoVits.onnx"]) == 0
    assert files(work) - before == {"out/bass_SoVits.onnx", "out/bass.json"}
    assert json.loads(Path("out/bass.json").read_text(encoding="utf-8"))["Name"] == "bass"
    assert onnx_export.main(explicit) == 0
    assert {"checkpoints/G_8000/G_8000_SoVits.onnx", "checkpoints/G_8000.json"} <= files(work)


def test_a_name_completed_with_a_slash_or_below_other_folders_means_the_folder(work):
    before = files(work)
    assert onnx_export.main(["-n", "alto/"]) == 0
    assert files(work) - before == {"checkpoints/alto/alto_SoVits.onnx", "checkpoints/alto.json"}
    shutil.copytree("checkpoints/alto", "checkpoints/choirs/bass")
    assert onnx_export.main(["-n", "choirs/bass"]) == 0
    assert Path("checkpoints/choirs/bass/bass_SoVits.onnx").is_file()
    assert json.loads(Path("checkpoints/choirs/bass.json").read_text(encoding="utf-8"))["Folder"] == "bass"


def test_a_given_name_is_the_one_in_the_json(work):
    assert onnx_export.main(["-n", "choir", "-m", "checkpoints/alto/model.pth", "-o", "out/graph.onnx"]) == 0
    values = json.loads(Path("out/graph.json").read_text(encoding="utf-8"))
    assert values["Folder"] == values["Name"] == "choir"


def test_the_same_checkpoint_gives_the_same_bytes_in_another_process(work):
    assert onnx_export.main(["-n", "alto"]) == 0
    command = [sys.executable, str(ROOT / "onnx_export.py"), "-n", "alto", "-o", "again.onnx"]
    torch.rand(3)  # changes the state of the generator
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert Path("again.onnx").read_bytes() == Path("checkpoints/alto/alto_SoVits.onnx").read_bytes()


def test_an_export_does_not_change_the_random_state(tmp_path):
    config = config_of()
    network = Synthesizer(config.model).eval()
    before = torch.random.get_rng_state()
    write_graph(synthesizer_graph(network, config), tmp_path / "song.onnx")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_release_without_what_only_training_needs_is_exported_alike(work):
    path = Path("checkpoints/alto/model.pth")
    assert onnx_export.main(["-n", "alto", "-o", "whole.onnx"]) == 0
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["model"] = {name: t for name, t in checkpoint["model"].items() if not name.startswith("enc_q.")}
    torch.save(checkpoint, path)
    assert onnx_export.main(["-n", "alto", "-o", "release.onnx"]) == 0
    assert Path("whole.onnx").read_bytes() == Path("release.onnx").read_bytes()


# -- mistakes ---------------------------------------------------------------------------------------------------------


def another_size(config):
    config.model.filter_channels = 24


def a_speaker_beyond_the_table(config):
    config.spk = {"alto": 7}


def more_speakers_than_the_checkpoint(config):
    config.model.n_speakers, config.spk = 8, {"alto": 7}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (another_size, r"model.pth does not match its config.json: .*conv_1.weight is \[16, 8, 3\] in the file"),
        (a_speaker_beyond_the_table, r"config.json: spk gives \['alto'\] numbers outside 0 to 1"),
        (more_speakers_than_the_checkpoint, r"model.pth does not match its config.json: emb_g.weight is \[2, 4\]"),
    ],
)
def test_a_config_that_does_not_match_is_refused_in_one_sentence(work, capsys, change, sentence):
    path = Path("checkpoints/alto/config.json")
    config = load_config(path)
    change(config)
    save_config(config, path)
    refused(work, capsys, ["-n", "alto"], sentence)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["-n", "nobody"], "there is no checkpoints/nobody/model.pth; put it there, or name another with --model"),
        ([], "there is no checkpoints/TransformerFlow/model.pth"),
        (["-n", "alto", "-c", "no.json"], "there is no no.json; .* --config"),
        (["-n", "alto", "--diffusion"], "there is no checkpoints/alto/model_<step>.pt; .* --model"),
        (["--vocoder"], "there is no pretrain/nsf_hifigan/model"),
        (["--vocoder", "wavenet", "-m", "checkpoints/alto/model.pth"], "unknown mel vocoder 'wavenet'; known: nsf"),
        (["--vocoder", "-m", "checkpoints/alto/model.pth"], "config.json lacks"),
        (["--encoder", "vec768l12"], "needs 'checkpoint_best_legacy_500.pt' in pretrain/"),
        (["--encoder", "vec"], "unknown speech encoder 'vec'; known: vec"),
        (["--f0", "rmvpe"], "'rmvpe' needs the file pretrain/rmvpe.pt, .*, or take fcpe, crepe or pm"),
        (["--f0", "pm"], "the F0 predictor 'pm' cannot be exported"),
        (["--encoder", "vec768l12", "-m", "x.pt"], "--model has no use"),
        (["--f0", "rmvpe", "-c", "x.json"], "--config has no use"),
        (["-n", "alto", "-o", "checkpoints/alto/model.pth"], "would be written over the model that it is made of"),
        (["-n", "alto", "-o", "checkpoints/alto/config.onnx"], "config.json would be written over"),
        (["-n", "alto", "-o", "out/alto"], "out/alto does not end in .onnx"),
        (["-n", "alto", "-o", "out/alto.json"], "out/alto.json does not end in .onnx"),
        (["-n", "alto", "-o", "."], "--out takes the name of a file"),
        (["-n", "alto", "-o", ""], "--out takes the name of a file"),
        (["--encoder", "vec768l12", "-o", "/"], "--out takes the name of a file"),
        (["--diffusion", "-n", "alto", "-o", "out/.."], "--out takes the name of a file"),
        (["-n", "."], "'checkpoints' is not named after a model"),
        (["-n", ""], "'checkpoints' is not named after a model"),
        (["-n", "alto", "--pretrain", "nowhere"], "--pretrain has no use here"),
        (["-n", "alto", "--diffusion", "--pretrain", "nowhere"], "--pretrain has no use here"),
        (["--vocoder", "-m", "x", "--pretrain", "nowhere"], "--pretrain has no use with --model"),
        (["-n", "alto", "--f0", "rmvpe"], "--model_name has no use"),
        (["-n", "alto", "--encoder", "vec768l12"], "--model_name has no use"),
        (["-n", "alto", "--vocoder"], "--model_name has no use"),
        (["-n", "alto", "--encoder", ""], "--model_name has no use"),
        (["--encoder", ""], "unknown speech encoder ''"),
        (["--f0", ""], "unknown F0 predictor ''"),
        (["--vocoder", "", "-m", "checkpoints/alto/model.pth", "-o", "a.onnx"], "unknown mel vocoder ''"),
        (["-n", "alto", "-o", "checkpoints/alto/model.pth/a.onnx"], "model.pth is a file, and a folder is needed"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(work, capsys, flags, sentence):
    refused(work, capsys, flags, sentence)


def test_a_missing_package_is_named_with_its_cure(work, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    refused(work, capsys, ["-n", "alto"], "pip install -r requirements-onnx.txt")


def test_a_graph_that_no_file_holds_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(graph_module, "MAX_BYTES", 100)
    graph = Graph(torch.nn.Linear(8, 8), {"x": torch.zeros(1, 8)}, ("y",), {})
    with pytest.raises(graph_module.UserError, match="the network takes .* GB, and one ONNX file holds 2 GB"):
        write_graph(graph, tmp_path / "large.onnx")
    assert not files(tmp_path)


@pytest.mark.parametrize(
    ("flags", "sources"),
    [
        (["--vocoder", "-o"], ["pretrain/nsf_hifigan/model", "pretrain/nsf_hifigan/config.json"]),
        (["--encoder", "dphubert", "-o"], ["pretrain/DPHuBERT-sp0.75.pth"]),
        (["--f0", "fcpe", "-o"], ["pretrain/fcpe.pt"]),
        (["--vocoder", "-m", "pretrain/model.onnx", "-o"], ["pretrain/model.onnx"]),
        (["--diffusion", "-m", "pretrain/a_pred.onnx", "-o", "pretrain/a"], [""]),
    ],
)
def test_no_graph_overwrites_its_sources(work, capsys, flags, sources):
    write_vocoder(work / "pretrain" / "nsf_hifigan")
    write_encoder_file("dphubert", work / "pretrain")
    write_fcpe(work / "pretrain" / "fcpe.pt")
    for name in ("model", "config.json"):
        shutil.copy(f"pretrain/nsf_hifigan/{name}", "pretrain")
    Path("pretrain/model").rename("pretrain/model.onnx")
    model, config = write_diffusion(work / "diffusion")
    shutil.copy(model, "pretrain/a_pred.onnx")
    shutil.copy(config, "pretrain/config.yaml")
    before = contents(work)
    for source in sources:
        refused(work, capsys, [*flags, source] if source else flags, "would be written over the model")
    assert contents(work) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_graph_and_json_are_both_written_or_neither(work, capsys):
    Path("checkpoints/alto.json").mkdir()
    refused(work, capsys, ["-n", "alto"], "checkpoints/alto.json cannot be written: it is a folder")
    Path("out/a.onnx").mkdir(parents=True)
    refused(work, capsys, ["-n", "alto", "-o", "out/a.onnx"], "out/a.onnx cannot be written: it is a folder")


def test_the_graphs_of_a_diffusion_model_are_all_written_or_none(work, capsys):
    write_diffusion(work / "checkpoints" / "alto")
    Path("out/s_denoise.onnx").mkdir(parents=True)
    sentence = "s_denoise.onnx cannot be written: it is a folder"
    refused(work, capsys, ["-n", "alto", "--diffusion", "-o", "out/s"], sentence)


def refused(work: Path, capsys, flags: list[str], sentence: str) -> None:
    before = files(work)
    assert onnx_export.main(flags) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and re.search(sentence, lines[0]), lines
    assert files(work) == before


# -- the others -------------------------------------------------------------------------------------------------------


def test_the_diffusion_and_the_vocoder_lie_where_the_help_says(work):
    write_diffusion(work / "checkpoints" / "alto")
    write_vocoder(work / "pretrain" / "nsf_hifigan")
    before = files(work)
    assert onnx_export.main(["-n", "alto", "--diffusion"]) == 0
    assert onnx_export.main(["--vocoder"]) == 0
    parts = {f"checkpoints/alto/alto_{part}.onnx" for part in ("encoder", "denoise", "pred", "after")}
    graphs = {"pretrain/nsf_hifigan/nsf_hifigan.onnx", "pretrain/nsf_hifigan/MelOps.onnx"}
    assert files(work) - before == {*parts, *graphs, "checkpoints/alto_diffusion.json"}
    model = work / "checkpoints" / "alto" / "model_0.pt"
    assert onnx_export.main(["--diffusion", "-m", str(model), "-o", "out/song"]) == 0
    for part in ("encoder", "denoise", "pred", "after"):
        assert Path(f"out/song_{part}.onnx").read_bytes() == Path(f"checkpoints/alto/alto_{part}.onnx").read_bytes()
    assert json.loads(Path("out/song_diffusion.json").read_text(encoding="utf-8"))["Folder"] == "song"


@pytest.mark.parametrize("folder", ["checkpoints", "out"])
@pytest.mark.parametrize("diffusion_first", [True, False])
def test_the_json_names_the_diffusion_model_whichever_is_exported_first(work, caplog, diffusion_first, folder):
    write_diffusion(work / "checkpoints" / "alto")
    out = folder == "out"
    synthesizer = ["--out", "out/alto_SoVits.onnx"] if out else []
    diffusion = ["--diffusion", "--out", "out/alto"] if out else ["--diffusion"]
    for flags in [diffusion, synthesizer] if diffusion_first else [synthesizer, diffusion]:
        assert onnx_export.main(["-n", "alto", *flags]) == 0
    values = json.loads(Path(folder, "alto.json").read_text(encoding="utf-8"))
    assert values["ShallowDiffusion"] == "alto_diffusion" and Path(folder, "alto_diffusion.json").is_file()
    next_step = f"export the synthesizer next; its JSON file, {folder}/alto.json, will name this"
    assert (next_step in caplog.messages) is diffusion_first


def test_the_order_of_the_diffusion_models_speakers_is_the_named_synthesizers_or_is_logged(work, caplog):
    model, _ = write_diffusion(work / "logs", spk={"tenor": 0, "alto": 1})
    orders = []
    for flags in ([], ["-n", "alto"]):
        caplog.clear()
        assert onnx_export.main(["--diffusion", "-m", str(model), "-o", "out/song", *flags]) == 0
        assert ("in the order of their numbers" in caplog.text) is (not flags)
        orders.append(json.loads(Path("out/song_diffusion.json").read_text(encoding="utf-8"))["Characters"])
    assert orders == [["tenor", "alto"], ["alto", "tenor"]]


FEATURES = {7: np.random.default_rng(0).standard_normal((90, 8)).astype(np.float32)}
FEATURES[0] = FEATURES[7][:7] + 1
INDEX = "logs/44k/feature_and_index.pkl"


@pytest.fixture
def indexed(work) -> Path:
    """A model whose second speaker has the row 7, and an index of its speakers and of another one."""
    config = load_config("checkpoints/alto/config.json")
    config.model.n_speakers, config.spk = 8, {"alto": 0, "tenor": 7}
    save_config(config, "checkpoints/alto/config.json")
    indexes = [(row, build_index(some)) for row, some in FEATURES.items()]
    write_indexes(INDEX, [*indexes, (3, build_index(FEATURES[7] - 1))], {"alto": 0, "tenor": 7, "bass": 3})
    return work


def test_each_speakers_index_has_the_number_of_its_place(indexed):
    before = files(indexed)
    assert export_index_for_onnx.main(["-n", "alto"]) == 0
    assert export_index_for_onnx.main(["-i", INDEX, "-c", "checkpoints/alto/config.json", "-o", "out"]) == 0
    folders = "checkpoints/alto", "out"
    assert files(indexed) - before == {f"{folder}/Index-{place}.index" for folder in folders for place in (0, 1)}
    for place, row in enumerate((0, 7)):
        index = faiss.read_index(f"checkpoints/alto/Index-{place}.index")
        np.testing.assert_array_equal(index.reconstruct_n(0, index.ntotal), FEATURES[row])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"alto": 0, "bassoon": 5}, "has no features of bassoon, and the host needs them of every speaker"),
        ({"alto": 7}, "is for other voices"),
        ({}, "names no speakers"),
    ],
)
def test_an_index_that_does_not_fit_the_speakers_is_refused(indexed, capsys, change, words):
    config = load_config("checkpoints/alto/config.json")
    config.spk = change
    save_config(config, "checkpoints/alto/config.json")
    before = files(indexed)
    assert export_index_for_onnx.main(["-n", "alto"]) == 2
    assert words in capsys.readouterr().err and files(indexed) == before


@pytest.mark.parametrize(
    ("flags", "file", "maker"),
    [([], "feature_and_index.pkl", "train_index.py"), (["-k"], "kmeans_10000.pt", "cluster/train_cluster.py")],
)
def test_features_of_another_size_than_the_models_are_refused(indexed, capsys, flags, file, maker):
    save_cluster_model("logs/44k/kmeans_10000.pt", {"alto": FEATURES[0], "tenor": FEATURES[7]})
    config = load_config("checkpoints/alto/config.json")
    config.model.ssl_dim = 72
    save_config(config, "checkpoints/alto/config.json")
    before = files(indexed)
    assert export_index_for_onnx.main(["-n", "alto", *flags]) == 2
    sentence = f"logs/44k/{file} holds features of size 8, and the model takes 72 (ssl_dim); run 'python {maker}'"
    assert sentence in capsys.readouterr().err and files(indexed) == before


@pytest.mark.parametrize("flags", [["-n", ""], ["-n", "."], ["-n", ".."], ["-n", "alto", "-o", "."], ["-o", "out/.."]])
def test_a_name_that_is_no_models_is_refused_before_anything_is_written(indexed, capsys, flags):
    shutil.copy("checkpoints/alto/config.json", "checkpoints")
    before = files(indexed)
    assert export_index_for_onnx.main(["-c", "checkpoints/alto/config.json", *flags]) == 2
    assert "is not named after a model" in capsys.readouterr().err and files(indexed) == before


def test_centres_are_a_table_behind_128_bytes_with_as_many_rows_for_each_speaker(work, capsys):
    centres = {"tenor": FEATURES[7], "alto": FEATURES[0]}
    save_cluster_model("logs/44k/kmeans_10000.pt", centres)
    assert export_index_for_onnx.main(["-n", "alto", "--kmeans"]) == 0
    data = Path("checkpoints/alto/KMeans.npy").read_bytes()
    table = np.frombuffer(data[128:], "<f4").reshape(2, 90, 8)
    np.testing.assert_array_equal(table[1], centres["tenor"])
    np.testing.assert_array_equal(np.unique(table[0], axis=0), np.unique(centres["alto"], axis=0))
    save_cluster_model("logs/44k/kmeans_10000.pt", {"tenor": FEATURES[7]})
    assert export_index_for_onnx.main(["-n", "alto", "-k"]) == 2
    assert "kmeans_10000.pt has no features of alto" in capsys.readouterr().err
    Path("checkpoints/alto/Index-0.index").touch()
    assert export_index_for_onnx.main(["-n", "alto", "-k"]) == 2


@pytest.mark.parametrize("shape", [(1, 1), (9_999_999, 1280)])
def test_the_header_of_centres_is_of_128_bytes_whatever_their_number(shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    assert file.tell() == 128


@pytest.mark.parametrize("timbre_first", [True, False])
def test_the_json_says_which_timbre_lies_beside_the_graph(indexed, timbre_first):
    save_cluster_model("logs/44k/kmeans_10000.pt", {"alto": FEATURES[0], "tenor": FEATURES[7]})
    write_generator_file(Path("checkpoints/alto/model.pth"), load_config("checkpoints/alto/config.json"))
    commands = [[onnx_export.main, []], [export_index_for_onnx.main, ["-k"]]]
    for main, flags in reversed(commands) if timbre_first else commands:
        assert main(["-n", "alto", *flags]) == 0
    values = json.loads(Path("checkpoints/alto.json").read_text(encoding="utf-8"))
    assert (values["Cluster"], values["KMeansLength"]) == ("KMeans", 90)
    Path("checkpoints/alto/KMeans.npy").unlink()
    for main, flags in ([export_index_for_onnx.main, []], commands[0]):
        assert main(["-n", "alto", *flags]) == 0
        values = json.loads(Path("checkpoints/alto.json").read_text(encoding="utf-8"))
        assert values["Cluster"] == "Index" and "KMeansLength" not in values


def test_a_table_of_centres_of_another_number_of_speakers_is_left_out_with_a_warning(tmp_path, caplog):
    np.save(tmp_path / "KMeans.npy", np.zeros((5, 8), np.float32))
    assert timbre_metadata(tmp_path, 2) == {"Cluster": ""}
    assert "KMeans.npy is left out" in caplog.text


def test_the_indexes_of_all_speakers_are_written_or_none(indexed, capsys):
    Path("out/Index-1.index").mkdir(parents=True)
    before = files(indexed)
    assert export_index_for_onnx.main(["-n", "alto", "-o", "out"]) == 2
    assert "out/Index-1.index cannot be written: it is a folder" in capsys.readouterr().err
    assert files(indexed) == before


def test_a_missing_or_hostile_index_is_refused_in_one_sentence(work, capsys):
    assert export_index_for_onnx.main(["-n", "alto"]) == 2
    message = capsys.readouterr().err
    assert "there is no" in message and "'python train_index.py' makes it" in message and "--" not in message
    Path("bad.pkl").write_bytes(b"cos\nsystem\n(S'touch harmed'\ntR.")
    assert export_index_for_onnx.main(["-n", "alto", "-i", "bad.pkl"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not Path("harmed").exists()
    assert export_index_for_onnx.main([]) == 2
    assert "there is no checkpoints/crs/config.json" in capsys.readouterr().err and not Path("checkpoints/crs").exists()
