"""The graphs of diffusion and vocoder have the published signatures and equal the networks, at any length."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from diffusion.samplers import ADAMS_BASHFORTH
from diffusion.unit2mel import Unit2Mel, load_unit2mel
from modules.audio.spectrogram import VocoderMel
from modules.config import load_diffusion_config
from modules.console import UserError
from onnxexport.diffusion import EXAMPLE_FRAMES, export_diffusion
from onnxexport.graph import write_graph
from onnxexport.mel import mel_graph
from onnxexport.vocoder import export_vocoder
from tests.diffusion_files import MELS, write_diffusion
from tests.onnx_files import relative_error, run, signature
from tests.vocoder_files import write_vocoder
from vdecoder.mel_vocoder import load_mel_vocoder

HIDDEN, UNITS = 8, 72
LENGTHS = (2, 31, EXAMPLE_FRAMES + 77)


@pytest.fixture(scope="module", params=[1, 3], ids=["one_speaker", "three_speakers"])
def exported(request, tmp_path_factory) -> tuple[Path, Unit2Mel, int]:
    """The graphs' prefix, the network, and its number of speakers."""
    folder = tmp_path_factory.mktemp("diffusion")
    speakers = {name: row for row, name in enumerate("abc"[: request.param])}
    model, config = write_diffusion(folder, spk=speakers, n_layers=2)
    export_diffusion(model, config, folder / "out" / "song", folder / "song.json")
    assert len(list((folder / "out").iterdir())) == 4
    return folder / "out" / "song", load_unit2mel(model, load_diffusion_config(config), MELS, "cpu"), request.param


def part(prefix: Path, name: str) -> Path:
    return prefix.with_name(f"{prefix.name}_{name}.onnx")


def song(frames: int, speakers: int) -> dict[str, torch.Tensor]:
    """Inputs for the first graph, as a host passes them."""
    torch.manual_seed(frames)
    units = frames // 2 + 1
    return {
        "hubert": torch.randn(1, units, UNITS),
        "mel2ph": torch.randint(0, units + 1, (1, frames)),
        "f0": 80 + 500 * torch.rand(1, frames),
        "volume": torch.rand(1, frames),
        "spk_mix": torch.rand(frames, speakers) if speakers > 1 else torch.tensor([0]),
    }


def test_the_signatures_are_the_published_ones(exported):
    prefix, _, speakers = exported
    mel, free = [1, 1, MELS, "?"], [1, "?"]
    tables = {
        "encoder": (
            [
                ("hubert", "FLOAT", [1, "?", UNITS]),
                ("mel2ph", "INT64", free),
                ("f0", "FLOAT", free),
                ("volume", "FLOAT", free),
                ("spk_mix", "FLOAT", ["?", speakers]) if speakers > 1 else ("spk_mix", "INT64", [1]),
            ],
            [("mel_pred", "FLOAT", [1, HIDDEN, "?"])],
        ),
        "denoise": (
            [("noise", "FLOAT", mel), ("time", "INT64", [1]), ("condition", "FLOAT", [1, HIDDEN, "?"])],
            [("noise_pred", "FLOAT", mel)],
        ),
        "pred": (
            [
                ("noise", "FLOAT", mel),
                ("noise_pred", "FLOAT", mel),
                ("time", "INT64", [1]),
                ("time_prev", "INT64", [1]),
            ],
            [("noise_pred_o", "FLOAT", mel)],
        ),
        "after": ([("x", "FLOAT", mel)], [("mel_out", "FLOAT", [1, MELS, "?"])]),
    }
    for name, table in tables.items():
        assert signature(part(prefix, name)) == table, name


@pytest.mark.parametrize("frames", LENGTHS)
def test_the_encoder_is_the_networks_condition(exported, frames):
    prefix, network, speakers = exported
    feeds = song(frames, speakers)
    units = torch.cat((torch.zeros(1, 1, UNITS), feeds["hubert"]), dim=1)[:, feeds["mel2ph"][0]]
    speaker = feeds["spk_mix"] if speakers > 1 else None
    wanted = network.condition(units, feeds["f0"][..., None], feeds["volume"][..., None], speaker)
    assert relative_error(run(part(prefix, "encoder"), feeds), wanted) < 1e-4


@pytest.mark.parametrize("frames", LENGTHS)
def test_a_host_that_samples_with_the_graphs_gets_what_pndm_gets(exported, frames):
    prefix, network, speakers = exported
    feeds, speedup = song(frames, speakers), 7
    units = torch.cat((torch.zeros(1, 1, UNITS), feeds["hubert"]), dim=1)[:, feeds["mel2ph"][0]]
    wanted = network.infer(
        units,
        feeds["f0"][..., None],
        feeds["volume"][..., None],
        feeds["spk_mix"] if speakers > 1 else None,
        method="pndm",
        speedup=speedup,
        generator=torch.Generator().manual_seed(3),
    )
    condition = run(part(prefix, "encoder"), feeds)
    x = torch.randn(1, MELS, frames, generator=torch.Generator().manual_seed(3))[:, None]

    def denoise(x, step):
        return run(part(prefix, "denoise"), {"noise": x, "time": torch.tensor([step]), "condition": condition})

    def pred(x, noise, step, there):
        feeds = {"noise": x, "noise_pred": noise, "time": torch.tensor([step]), "time_prev": torch.tensor([there])}
        return run(part(prefix, "pred"), feeds)

    history = []
    for step in range((network.timesteps - 1) // speedup * speedup, 0, -speedup):
        there = step - speedup
        history = [denoise(x, step), *history[:3]]
        if len(history) == 1:
            noise = (history[0] + denoise(pred(x, history[0], step, there), there)) / 2
        else:
            noise = sum(weight * past for weight, past in zip(ADAMS_BASHFORTH[len(history)], history, strict=True))
        x = pred(x, noise, step, there)
    mel = run(part(prefix, "after"), {"x": x})
    assert wanted.std() > 0.1
    assert relative_error(mel, wanted.transpose(1, 2)) < 1e-4


def test_a_checkpoint_of_another_config_is_refused_in_one_sentence_and_nothing_is_written(tmp_path):
    model, _ = write_diffusion(tmp_path / "a")
    _, other = write_diffusion(tmp_path / "b", n_chans=16)
    with pytest.raises(UserError, match=r"model_0.pt does not hold a whole diffusion model .*should be \[16, "):
        export_diffusion(model, other, tmp_path / "out" / "song", tmp_path / "out" / "song.json")
    with pytest.raises(UserError, match="model is no diffusion model: .*; a model_<step>.pt of train_diff.py"):
        export_diffusion(tmp_path / "a" / "vocoder" / "model", other, tmp_path / "out" / "song", tmp_path / "song.json")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spk", "order"), [({"c": 0, "a": 2, "b": 1}, "cba"), ({"a": 0, "b": 1, "c": 2}, "bca"), ({"c": 2}, ""), ({}, "")]
)
def test_a_place_is_the_speaker_of_that_name_and_the_json_announces_the_form(tmp_path, spk, order):
    """The order is that of the synthesizer, or else of the numbers; the YAML's is alphabetical."""
    model, path = write_diffusion(tmp_path, spk=spk, n_spk=3)
    names = list(order) if order == "bca" else None
    export_diffusion(model, path, tmp_path / "song", tmp_path / "song.json", names)
    spk = {name: spk[name] for name in order} or spk
    network = load_unit2mel(model, load_diffusion_config(path), MELS, "cpu")
    values = json.loads((tmp_path / "song.json").read_text(encoding="utf-8"))
    assert values["Characters"] == (list(spk) or ["0", "1", "2"]) and values["CharaMix"] is (len(spk) != 1)
    for place, row in enumerate(spk.values() or range(3)):
        feeds = song(20, 1)
        if values["CharaMix"]:
            feeds["spk_mix"] = torch.eye(3)[place].expand(20, -1)
        units = torch.cat((torch.zeros(1, 1, UNITS), feeds["hubert"]), dim=1)[:, feeds["mel2ph"][0]]
        wanted = network.condition(units, feeds["f0"][..., None], feeds["volume"][..., None], torch.tensor([[row]]))
        assert relative_error(run(part(tmp_path / "song", "encoder"), feeds), wanted) < 1e-4


def test_the_json_has_the_keys_that_moevoicestudio_reads(tmp_path):
    data = {"encoder": "vec768l12", "encoder_out_channels": 768}
    model, config = write_diffusion(tmp_path, spk={"声": 0}, data=data)
    export_diffusion(model, config, tmp_path / "out" / "song", tmp_path / "song.json")
    assert json.loads((tmp_path / "song.json").read_text(encoding="utf-8")) == {
        "Folder": "song", "Name": "song", "Type": "DiffSvc", "Rate": 44100, "Hop": 512, "MelBins": MELS,
        "Hubert": "vec-768-layer-12", "Hifigan": "vocoder", "Diffusion": True, "CharaMix": False, "Volume": True,
        "HiddenSize": 768, "Characters": ["声"], "Pndm": 10, "SpecMax": 2.0, "SpecMin": -12.0,
    }  # fmt: skip


def test_a_speaker_beyond_the_table_is_refused(tmp_path):
    model, config = write_diffusion(tmp_path, spk={"a": 0, "b": 3}, n_spk=3)
    with pytest.raises(UserError, match="config.yaml: spk gives b numbers outside 0 to 2"):
        export_diffusion(model, config, tmp_path / "song", tmp_path / "song.json")


def test_speakers_that_are_not_the_synthesizers_are_named_in_the_log(tmp_path, caplog):
    model, config = write_diffusion(tmp_path)
    export_diffusion(model, config, tmp_path / "song", tmp_path / "song.json", ["tenor", "bass"])
    assert "its speakers alto, tenor are not the synthesizer's tenor, bass" in caplog.text


# -- the vocoder ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nsf-hifigan", "nsf-hifigan-log10"])
def test_the_vocoders_graph_is_the_vocoder_at_any_length(tmp_path, kind):
    path, out = write_vocoder(tmp_path), tmp_path / "vocoder.onnx"
    export_vocoder(path, out, kind)
    assert signature(out) == (
        [("c", "FLOAT", [1, 128, "?"]), ("f0", "FLOAT", [1, "?"])],
        [("audio", "FLOAT", [1, 1, "?"])],
    )
    assert signature(tmp_path / "MelOps.onnx") == (
        [("waveform", "FLOAT", [1, 1, "?"]), ("aligment", "INT64", [1, "?"])],
        [("mel", "FLOAT", [1, 128, "?"])],
    )
    vocoder = load_mel_vocoder(path, kind=kind)
    for frames in LENGTHS:
        torch.manual_seed(frames)
        mel = torch.randn(1, frames, 128) - 4
        f0 = (80 + 500 * torch.rand(1, frames)) * (torch.rand(1, frames) > 0.2)
        generator = torch.Generator().manual_seed(9)
        first = torch.rand(1, 9, generator=generator)
        noise = torch.randn(1, 512 * frames, 9, generator=generator)
        wanted = vocoder.synthesize(mel, f0, generator=torch.Generator().manual_seed(9))
        audio = run(out, {"c": mel.transpose(1, 2), "f0": f0}, first, noise)
        assert wanted.std() > 1e-2
        assert relative_error(audio[:, 0], wanted) < 1e-4


def test_a_smaller_precision_leaves_the_mel_graph_as_it_is(tmp_path):
    path = write_vocoder(tmp_path)
    for precision in ("fp32", "int8"):
        export_vocoder(path, tmp_path / precision / "vocoder.onnx", precision=precision)
    graphs = {name: [(tmp_path / kind / name).read_bytes() for kind in ("fp32", "int8")] for name in FILES}
    assert graphs["MelOps.onnx"][0] == graphs["MelOps.onnx"][1]
    assert graphs["vocoder.onnx"][0] != graphs["vocoder.onnx"][1]


FILES = ("vocoder.onnx", "MelOps.onnx")


@pytest.mark.parametrize("sizes", [{}, {"hop_size": 441, "win_size": 1764, "num_mels": 40, "fmin": 0, "fmax": 7000}])
@pytest.mark.parametrize("seconds", [0.05, 1.0, 1.37])
def test_the_mel_graph_gives_the_vocoders_mel_below_8_khz(tmp_path, sizes, seconds):
    """The sound has no energy above 7 kHz, and is computed at both rates, without a resampler."""
    mel = VocoderMel(**{NAMES.get(key, key): value for key, value in sizes.items()})
    write_graph(mel_graph(mel), tmp_path / "MelOps.onnx")

    def sound(rate: int) -> torch.Tensor:
        time = torch.arange(int(seconds * rate)).double() / rate
        partials = range(1, 35)  # to 6.9 kHz
        return sum(0.1 / k * torch.sin(2 * torch.pi * k * (200 * time + time**2) + k * k) for k in partials).float()

    wanted = mel(sound(44100)[None])
    waveform, frames = sound(16000)[None, None], wanted.shape[2]
    found = run(tmp_path / "MelOps.onnx", {"waveform": waveform, "aligment": torch.ones(1, frames, dtype=torch.long)})
    assert found.shape == wanted.shape
    inner = slice(3, -3)  # the outer frames see the reflected edges, whose samples lie elsewhere
    loud = wanted > wanted.max() - 7
    loud[..., :3] = loud[..., -3:] = False
    assert loud.any() == (seconds > 0.1)
    assert torch.all((found - wanted).abs()[loud] < 0.03)
    assert torch.all(found[:, :, inner] >= math.log(1e-5) - 1e-3)


NAMES = {"hop_size": "hop_length", "win_size": "win_length", "num_mels": "n_mels"}
