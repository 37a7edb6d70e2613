"""preparation/vocoder_mels.py: mels for diffusion are correct, reproducible, and made together with their volume."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from modules.audio.files import read_audio
from modules.audio.loudness import volume
from modules.audio.spectrogram import VocoderMel
from modules.config import save_config, save_diffusion_config
from modules.console import UserError
from modules.data.features import ClipFiles
from preparation import feature_job
from preparation.configs import fitted_configs
from preparation.features import prepare_features
from preparation.vocoder_mels import augment, plain_mel, vocoder_mel
from tests.vocoder_files import write_vocoder

ROOT = Path(__file__).parents[1]
RATE, HOP = 44100, 512
MEL = VocoderMel()
OF_DIFFUSION = ("mel", "aug_mel", "aug_volume", "volume")


def harmonic_tone(f0, seconds=0.6, loudness=0.05):
    """A tone (L,) whose harmonics fall by 6 dB an octave, up to half the sampling rate."""
    time = torch.arange(int(seconds * RATE), dtype=torch.float64) / RATE
    harmonics = range(1, int(RATE / 2 / f0))
    return loudness * sum(torch.sin(2 * math.pi * f0 * h * time) / h for h in harmonics).float()


# -- the values -------------------------------------------------------------------------------------------------------


def test_plain_mel_has_a_row_a_hop_and_a_column_a_bin():
    audio = harmonic_tone(220)
    mel = plain_mel(audio, MEL)
    assert mel.shape == (len(audio) // HOP, 128)
    torch.testing.assert_close(mel.T, MEL(audio[None])[0])


@pytest.mark.parametrize("seed", range(4))
def test_the_augmented_mel_of_a_tone_is_the_mel_of_the_tone_moved_by_the_shift(seed):
    made = augment(harmonic_tone(220), MEL, seed)
    gain = float(np.median(made.volume)) / float(volume(harmonic_tone(220), HOP).median())
    moved = plain_mel(harmonic_tone(220 * 2 ** (made.shift / 12)) * gain, MEL).numpy()
    unmoved = plain_mel(harmonic_tone(220) * gain, MEL).numpy()
    middle = slice(5, -5), slice(0, 40)  # bins that tell harmonics apart
    assert np.abs(made.mel - moved)[middle].mean() < 0.35 * np.abs(made.mel - unmoved)[middle].mean()
    assert np.abs(made.mel - moved)[middle].mean() < 0.15


def test_the_augmented_volume_is_that_of_the_sound_that_the_mel_was_made_of():
    audio = harmonic_tone(220)
    for seed in range(8):
        made = augment(audio, MEL, seed)
        ratio = made.volume / volume(audio, HOP).numpy()
        gain = float(np.median(ratio))
        np.testing.assert_allclose(ratio, gain, rtol=1e-4)
        np.testing.assert_allclose(made.mel, plain_mel_shifted(audio * gain, made.shift), rtol=0, atol=1e-3)


def plain_mel_shifted(audio, shift):
    return MEL(audio[None], keyshift=shift)[0].T.numpy()


def test_shifts_and_loudnesses_cover_the_published_range_and_nothing_clips():
    audio = harmonic_tone(220, seconds=0.1, loudness=0.05)
    made = [augment(audio, MEL, seed) for seed in range(120)]
    shifts = np.array([one.shift for one in made])
    gains = np.log10([np.median(one.volume / volume(audio, HOP).numpy()) for one in made])
    highest = min(1, math.log10(1 / float(audio.abs().max())))
    assert -5 <= shifts.min() < -4.5 and 4.5 < shifts.max() <= 5 and abs(shifts.mean()) < 0.8
    assert -1 <= gains.min() < -0.95 and highest - 0.05 < gains.max() <= highest
    assert abs(np.corrcoef(shifts, gains)[0, 1]) < 0.3


def test_random_values_depend_on_the_sound_and_the_seed():
    audio = harmonic_tone(220, seconds=0.1)
    state = torch.get_rng_state()
    one, again, other = (augment(audio, MEL, seed) for seed in (2**127 + 1, 2**127 + 1, 2))
    assert one.shift == again.shift != other.shift and np.array_equal(one.mel, again.mel)
    assert torch.equal(torch.get_rng_state(), state)


def test_silence_has_finite_mels():
    made = augment(torch.zeros(RATE), MEL, 0)
    assert np.isfinite(made.mel).all() and not made.volume.any()


# -- which vocoder ----------------------------------------------------------------------------------------------------


@pytest.fixture
def configs(tmp_path):
    config, diffusion = fitted_configs({"a": 0}, "mfcc")
    diffusion.vocoder.ckpt = str(write_vocoder(tmp_path / "vocoder"))
    return config, diffusion


def test_the_mel_is_the_vocoders_and_needs_no_weights(configs, tmp_path):
    (tmp_path / "vocoder" / "model").unlink()
    values = json.loads((tmp_path / "vocoder" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "vocoder" / "config.json").write_text(json.dumps({**values, "num_mels": 80}), encoding="utf-8")
    assert vocoder_mel(*configs) == VocoderMel(n_mels=80)


def test_configurations_that_do_not_fit_together_are_refused_by_value(configs, tmp_path):
    config, diffusion = configs
    diffusion.data.encoder = "vec768l12"
    with pytest.raises(UserError, match="'mfcc' in config.json and 'vec768l12' in diffusion.yaml"):
        vocoder_mel(config, diffusion)
    diffusion.data.encoder, diffusion.data.block_size = "mfcc", 256
    with pytest.raises(UserError, match="hop is 512 .*config.json has 512 .*diffusion.yaml 256"):
        vocoder_mel(config, diffusion)
    diffusion.data.block_size, diffusion.vocoder.ckpt = 512, str(tmp_path / "nowhere" / "model")
    with pytest.raises(UserError, match="nowhere/config.json"):
        vocoder_mel(config, diffusion)


# -- beside the clips -------------------------------------------------------------------------------------------------


@pytest.fixture
def clips(tmp_path):
    clips = [tmp_path / "44k" / "a" / f"{number}.wav" for number in range(3)]
    clips[0].parent.mkdir(parents=True)
    for number, clip in enumerate(clips):
        soundfile.write(clip, harmonic_tone(200 + 20 * number, 0.4 + 0.1 * number).numpy(), RATE, subtype="PCM_16")
    return clips


def prepare(clips, config, **changes):
    return prepare_features(clips[0].parent.parent, config, "pm", **{"mel": MEL, **changes})


def contents(clips):
    return {path.name: path.read_bytes() for path in clips[0].parent.iterdir()}


def test_a_second_run_for_diffusion_adds_its_files_and_changes_no_others(configs, clips, monkeypatch):
    prepare(clips, configs[0], mel=None)
    before = contents(clips)
    monkeypatch.setattr(feature_job, "build_encoder", None)
    assert prepare(clips, configs[0]).reasons == {"that were missing": 9}
    after = contents(clips)
    assert {name for name in before if after[name] != before[name]} == {f"{clip.name}.meta.json" for clip in clips}
    for clip in clips:
        files = ClipFiles(clip)
        frames = files.read_f0()[0].shape[0]
        augmented = files.read_augmented(128)
        assert files.read_mel(128).shape == augmented.mel.shape == (frames, 128)
        assert files.read_volume().shape == augmented.volume.shape == (frames,)
        audio = torch.from_numpy(read_audio(clip)[0])
        np.testing.assert_allclose(files.read_mel(), plain_mel(audio, MEL).numpy(), atol=1e-5)
    assert len({ClipFiles(clip).read_augmented().shift for clip in clips}) == 3
    assert prepare(clips, configs[0]).ready == prepare(clips, configs[0], mel=None).ready == 3


def test_files_made_anew_have_the_same_bytes(configs, clips):
    prepare(clips, configs[0])
    before = contents(clips)
    for name in OF_DIFFUSION:
        getattr(ClipFiles(clips[1]), name).unlink()
    assert prepare(clips, configs[0]).made == 1
    assert contents(clips) == before
    assert prepare(clips, configs[0], remake=True).made == 3
    assert contents(clips) == before


@pytest.mark.parametrize("name", ["aug_mel", "aug_volume"])
def test_one_of_the_two_missing_makes_both_anew(configs, clips, name):
    prepare(clips, configs[0])
    before = contents(clips)
    getattr(ClipFiles(clips[0]), name).unlink()
    assert prepare(clips, configs[0]).reasons == {"that were missing": 1}
    assert contents(clips) == before


def test_a_run_killed_between_the_two_is_made_good_by_the_next(configs, clips, monkeypatch):
    prepare(clips, configs[0])
    before = contents(clips)
    higher = VocoderMel(fmax=12000)
    write = ClipFiles.write_augmented

    def killed(files, augmented):
        write(files, augmented)
        files.aug_mel.unlink()
        raise SystemExit

    monkeypatch.setattr(ClipFiles, "write_augmented", killed)
    with pytest.raises(SystemExit):
        prepare(clips, configs[0], mel=higher)
    monkeypatch.undo()
    assert prepare(clips, configs[0]).made == 1, "only the clip at which the run died"
    assert contents(clips) == before


def test_another_vocoder_makes_the_mels_anew_and_nothing_else(configs, clips, monkeypatch):
    prepare(clips, configs[0])
    monkeypatch.setattr(feature_job, "build_encoder", None)
    assert prepare(clips, configs[0], mel=VocoderMel(n_mels=80)).reasons == {"that had other settings": 6}
    assert ClipFiles(clips[0]).read_augmented(80).mel.shape == ClipFiles(clips[0]).read_mel(80).shape


def test_a_changed_clip_leaves_no_mel_of_the_former_sound(configs, clips):
    prepare(clips, configs[0])
    soundfile.write(clips[0], harmonic_tone(300, 0.4).numpy(), RATE, subtype="PCM_16")
    prepare(clips, configs[0], mel=None)
    assert not any(getattr(ClipFiles(clips[0]), name).exists() for name in OF_DIFFUSION)
    assert all(getattr(ClipFiles(clips[1]), name).exists() for name in OF_DIFFUSION)


def test_the_script_makes_them_with_the_vocoder_of_the_diffusion_configuration(configs, clips, tmp_path):
    config, diffusion = configs
    save_config(config, tmp_path / "configs" / "config.json")
    save_diffusion_config(diffusion, tmp_path / "configs" / "diffusion.yaml")
    command = [sys.executable, ROOT / "preprocess_hubert_f0.py", "--in_dir", "44k", "--f0_predictor", "pm"]
    done = subprocess.run([*command, "--use_diff"], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0 and "3 clips made" in done.stderr, done.stderr
    assert all(getattr(ClipFiles(clip), name).exists() for clip in clips for name in OF_DIFFUSION)
    Path(diffusion.vocoder.ckpt).with_name("config.json").unlink()
    done = subprocess.run([*command, "--use_diff"], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "vocoder/config.json" in done.stderr


def test_what_an_earlier_version_wrote_for_diffusion_is_brought_to_the_published_layout(configs, clips):
    prepare(clips, configs[0])
    before = contents(clips)
    for clip in clips:
        files = ClipFiles(clip)
        augmented = files.read_augmented()
        np.save(files.aug_mel, augmented.mel), np.save(files.aug_shift, np.float32(augmented.shift))
        known = json.loads(files.fingerprint.read_text(encoding="utf-8"))
        del known["augmented"]["recipe"]["layout"]
        files.fingerprint.write_text(json.dumps(known), encoding="utf-8")
    assert prepare(clips, configs[0]).reasons == {"that had other settings": 3}
    assert contents(clips) == before
