"""Every kind of model from recordings to a converted song: the scripts of stages 1 to 6, on tiny networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

import compress_model
import inference_main
import mix_model
import preprocess_flist_config
import preprocess_hubert_f0
import resample
import train
from modules.config import load_config, save_config
from modules.training.checkpoint import load_checkpoint
from tests.encoder_files import write_encoder_file
from tests.generator_files import config_of, write_generator_file
from tests.tiny import tiny_config

RATE = 44100

# Flags of the second stage, and what the user then writes into the config's model section.
VARIANTS = {
    "default": ([], {}),
    "tiny": (["--tiny"], {}),
    "transformer": ([], {"use_transformer_flow": True, "n_flow_layer": 2}),
    "shared_transformer": ([], {"use_transformer_flow": True, "flow_share_parameter": True, "n_flow_layer": 2}),
    "snake": ([], {"vocoder_name": "nsf-snake-hifigan"}),
    "no_f0_decoder": ([], {"use_automatic_f0_prediction": False}),
    "loudness": (["--vol_aug"], {}),
}
# Tensors by which a variant's checkpoint is known; None: one that it lacks.
MARKS = {
    "default": ("flow.flows.6.enc.in_layers.0.weight_v", None),
    "tiny": ("flow.wn.in_layers.0.depth_conv.weight_v", "flow.wn.in_layers.0.weight_v"),
    "transformer": ("flow.flows.2.enc.cond_pre.weight", "flow.flows.4.enc.cond_pre.weight"),
    "shared_transformer": ("flow.wn.cond_pre.weight", "flow.flows.4.enc.cond_pre.weight"),
    "snake": ("dec.snakes.0.act.alpha", None),
    "no_f0_decoder": ("emb_uv.weight", "f0_decoder.proj.weight"),
    "loudness": ("emb_vol.weight", None),
}
SIZES = (  # keys of the tiny model that make it small
    "inter_channels", "hidden_channels", "filter_channels", "n_layers", "resblock_kernel_sizes",
    "resblock_dilation_sizes", "upsample_rates", "upsample_kernel_sizes", "upsample_initial_channel", "n_flow_layer",
    "gin_channels", "discriminator_periods", "discriminator_width",
)  # fmt: skip


def record(path: Path, seconds: float, hz: float) -> None:
    """A tone with some noise, swelling and fading."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.default_rng(int(hz)).standard_normal(len(time))
    soundfile.write(path, (0.3 * np.sin(2 * np.pi * hz * time) + 0.01 * noise) * np.sin(np.pi * time / seconds), RATE)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder in which stages 1 to 3 were run, with loudness, on short recordings of two voices."""
    folder = tmp_path_factory.mktemp("variants")
    for number in range(8):
        voice = ("alto", "tenor")[number % 2]
        record(folder / "dataset_raw" / voice / f"{number}.wav", 0.6 + 0.05 * number, 180 + 20 * number)
    record(folder / "raw" / "song.wav", 0.8, 250)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert resample.main(["--num_processes", "1"]) == 0
        assert preprocess_flist_config.main(["--speech_encoder", "mfcc", "--vol_aug"]) == 0
        assert preprocess_hubert_f0.main(["--f0_predictor", "pm", "-d", "cpu"]) == 0
    return folder


@pytest.fixture
def work(prepared, monkeypatch) -> Path:
    monkeypatch.chdir(prepared)
    return prepared


def configure(variant: str, epochs: int) -> str:
    """Stage 2 with the variant's flags, its configuration made small and given a name of its own."""
    flags, changes = VARIANTS[variant]
    assert preprocess_flist_config.main(["--speech_encoder", "mfcc", "--fresh", *flags]) == 0
    config, tiny = load_config("configs/config.json"), tiny_config(log_interval=1000, epochs=epochs)
    for key in SIZES:
        setattr(config.model, key, getattr(tiny.model, key))
    for key, value in changes.items():
        setattr(config.model, key, value)
    tiny.train.vol_aug = config.train.vol_aug
    config.train = tiny.train
    path = f"configs/{variant}_{epochs}.json"
    save_config(config, path)
    return path


def newest(run: str) -> Path:
    return max(Path("logs", run).glob("G_*.pth"), key=lambda path: int(path.stem[2:]))


def convert(model: Path, output: str, *flags: str) -> np.ndarray:
    command = ["-m", str(model), "-n", "song.wav", "-s", "tenor", "-d", "cpu", "-wf", "wav", "-o", output, *flags]
    assert inference_main.main(command) == 0
    (path,) = Path(output).glob("*.wav")
    audio, rate = soundfile.read(path)
    assert (rate, len(audio)) == (RATE, int(0.8 * RATE)) and np.isfinite(audio).all() and audio.std() > 1e-4
    return audio


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_trained_resumed_compressed_and_sings(work, variant, tmp_path):
    short, long = configure(variant, epochs=1), configure(variant, epochs=2)
    assert train.main(["-c", long, "-m", f"{variant}_whole", "-d", "cpu"]) == 0
    for config in (short, long):
        assert train.main(["-c", config, "-m", variant, "-d", "cpu"]) == 0
    model = newest(variant)
    whole, resumed = (load_checkpoint(path)["model"] for path in (newest(f"{variant}_whole"), model))
    assert model.name == "G_4.pth" and list(whole) == list(resumed)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items()), "a resumed run is the whole one"
    there, absent = MARKS[variant]
    assert there in resumed and absent not in resumed

    original = convert(model, f"{tmp_path}/original")
    for flags, name, allowed in ([], "G_4_release.pth", 0), (["-hf"], "G_4_release_half.pth", 0.05):
        assert compress_model.main(["-i", str(model), *flags]) == 0
        release = model.with_name(name)
        assert release.stat().st_size < model.stat().st_size / 3
        difference = convert(release, f"{tmp_path}/{name}") - original
        assert np.linalg.norm(difference) <= allowed * np.linalg.norm(original)

    if variant != "no_f0_decoder":
        assert not np.array_equal(convert(model, f"{tmp_path}/auto", "-a"), original)


def test_two_trained_models_mix_and_the_mix_sings_whatever_the_format(work, tmp_path):
    config = configure("default", epochs=2)
    for run in ("one", "other"):
        values = load_config(config)
        values.train.seed = len(run)
        save_config(values, config)
        assert train.main(["-c", config, "-m", run, "-d", "cpu"]) == 0
    models = [Path("logs/one/voice.safetensors"), newest("other")]
    save_file(load_checkpoint(newest("one"))["model"], models[0])
    assert mix_model.main(["-m", *map(str, models), "-w", "80", "20", "--mode", "linear", "-o", "output.pth"]) == 0
    songs = [
        convert(model, f"{tmp_path}/{index}", "-c", "logs/one/config.json")
        for index, model in enumerate([*models, Path("output.pth")])
    ]
    assert not np.array_equal(songs[2], songs[0]) and not np.array_equal(songs[2], songs[1])
    np.testing.assert_array_equal(convert(newest("one"), f"{tmp_path}/pth"), songs[0])


# -- models of version 4.0 --------------------------------------------------------------------------------------------

# What a config of that version does not say yet.
LATER_KEYS = {
    "train": ("half_type", "all_in_mem", "vol_aug"),
    "data": ("unit_interpolate_mode",),
    "model": (
        "vocoder_name", "speech_encoder", "speaker_embedding", "vol_embedding", "use_depthwise_conv",
        "flow_share_parameter", "use_automatic_f0_prediction", "use_transformer_flow", "n_layers_trans_flow",
        "n_flow_layer",
    ),
}  # fmt: skip


def write_4_0(path: Path, **edit: str) -> Path:
    """A generator of 256 features and its config as that version wrote it, with ``edit`` in its model section."""
    config = config_of(ssl_dim=256, n_flow_layer=4)
    write_generator_file(path, config, seed=5)
    values = config.to_dict()
    for section, keys in LATER_KEYS.items():
        for key in keys:
            del values[section][key]
    values["model"].update(edit)
    path.with_name("config.json").write_text(json.dumps(values), encoding="utf-8")
    return path


def test_a_model_of_version_4_0_sings_with_and_without_the_edit_of_its_config(work, tmp_path):
    write_encoder_file("vec256l9", work / "pretrain")
    plain = write_4_0(tmp_path / "plain" / "G_1.pth")
    edited = write_4_0(tmp_path / "edited" / "G_1.pth", speech_encoder="vec256l9")
    songs = [convert(model, f"{model.parent}/out") for model in (plain, edited)]
    np.testing.assert_array_equal(*songs)

    assert compress_model.main(["-i", str(plain)]) == 0
    release = plain.with_name("G_1_release.pth")
    np.testing.assert_array_equal(convert(release, f"{tmp_path}/release"), songs[0])
