"""From recordings to a converted song with a PyTorch network of every encoder class: the scripts of stages 1 to 5.

Weight files are random and of the smallest sizes that their formats allow; the model is tiny and trained for two steps.
"""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

import inference_main
import preprocess_flist_config
import preprocess_hubert_f0
import resample
import train
from modules.config import load_config, save_config
from modules.data.features import ClipFiles, find_clips
from modules.training.checkpoint import load_checkpoint
from tests.encoder_files import PYTORCH_KEYS, write_encoder_file
from tests.tiny import tiny_config
from vencoder import ENCODERS

RATE = 44100
KEYS = sorted({ENCODERS[key].target: key for key in reversed(PYTORCH_KEYS)}.values())  # the first of each class
FITTED = ("speech_encoder", "ssl_dim", "gin_channels", "filter_channels", "n_speakers")  # set by the second stage


def tone(path, seconds, hz):
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.default_rng(int(hz)).standard_normal(len(time))
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hz * time) + 0.01 * noise, RATE)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder after stage 1, with six short recordings of one voice."""
    folder = tmp_path_factory.mktemp("chain")
    for number in range(6):
        tone(folder / "dataset_raw" / "alto" / f"{number}.wav", 0.7 + 0.05 * number, 200 + 20 * number)
    tone(folder / "raw" / "song.wav", 1.0, 250)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert resample.main(["--num_processes", "1"]) == 0
    return folder


def shrink(path):
    """Write the configuration with a tiny model, except for the sizes that the encoder sets."""
    config, tiny = load_config(path), tiny_config(epochs=1, batch_size=2, log_interval=1000)
    for name, value in vars(tiny.model).items():
        if name not in FITTED:
            setattr(config.model, name, value)
    config.train = tiny.train
    save_config(config, path)
    return config


@pytest.mark.parametrize("key", KEYS)
def test_recordings_become_a_converted_song(work, monkeypatch, key):
    monkeypatch.chdir(work)
    file = write_encoder_file(key, work / "pretrain")
    assert preprocess_flist_config.main(["--speech_encoder", key, "--fresh"]) == 0
    config = shrink("configs/config.json")
    assert (config.model.speech_encoder, config.model.ssl_dim) == (key, ENCODERS[key].ssl_dim)

    assert preprocess_hubert_f0.main(["--f0_predictor", "pm", "-d", "cpu"]) == 0
    for clip in find_clips("dataset/44k")["alto"]:
        units = ClipFiles(clip).read_units()
        samples = -(-soundfile.info(clip).frames * 16000 // RATE)
        hop_sized = key.startswith(("whisper", "hubertsoft"))
        assert units.shape == (1, ENCODERS[key].ssl_dim, samples // 320 if hop_sized else (samples - 400) // 320 + 1)

    assert train.main(["-m", key, "-d", "cpu"]) == 0
    model = max((work / "logs" / key).glob("G_*.pth"))
    assert load_checkpoint(model)["model"]["pre.weight"].shape[1] == ENCODERS[key].ssl_dim

    command = ["-m", str(model), "-n", "song.wav", "-s", "alto", "-d", "cpu", "-wf", "wav", "-o", f"results/{key}"]
    assert inference_main.main(command) == 0
    audio, rate = soundfile.read(work / "results" / key / "song.wav_0key_alto_sovits_fcpe.wav")
    assert (rate, len(audio)) == (RATE, RATE) and np.isfinite(audio).all() and audio.any()
    file.unlink()
