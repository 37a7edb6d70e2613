"""Sidecar files of every clip: correct, made once, made anew after a change, and never partial."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from modules.audio.spectrogram import VocoderMel
from modules.config import save_config
from modules.console import UserError
from modules.data.features import ClipFiles
from preparation import feature_job, features
from preparation.configs import fitted_configs
from preparation.feature_job import FeatureJob
from preparation.features import default_predictor, make_recipes, prepare_features
from preparation.fingerprints import check

ROOT = Path(__file__).parent.parent
SIDECARS = ("units", "f0", "spec", "volume")


def make_clip(path, samples=22050, rate=44100, f0=220.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(samples) / rate
    tone = sum(np.sin(2 * np.pi * f0 * harmonic * time) / harmonic for harmonic in range(1, 6))
    soundfile.write(path, 0.2 * tone, rate, subtype="PCM_16")
    return path


@pytest.fixture
def config():
    return fitted_configs({"a": 0}, "mfcc", vol_aug=True)[0]


@pytest.fixture
def clips(tmp_path):
    return [make_clip(tmp_path / "44k" / "a 声" / f"{number}.wav", 20000 + 3000 * number) for number in range(3)]


@pytest.fixture
def folder(clips):
    return clips[0].parent.parent


def sidecar_bytes(clips):
    return {
        (clip.name, name): getattr(ClipFiles(clip), name).read_bytes()
        for clip in clips
        for name in (*SIDECARS, "fingerprint")
    }


@pytest.mark.parametrize("predictor", ["pm", "dio", "harvest"])
def test_every_sidecar_file_has_one_frame_per_whole_hop(config, predictor, tmp_path):
    recipes = make_recipes(config, predictor)
    job = FeatureJob(config, predictor, "cpu", recipes, frozenset(recipes))
    job.set_up(0, 1)
    for samples in (769, 1023, 1024, 1025, 5000, 13230, 20479, 20480, 20481, 44101):
        files = ClipFiles(make_clip(tmp_path / f"{samples}.wav", samples))
        job.make(files, check(files, recipes))
        frames = samples // 512
        f0, uv = files.read_f0()
        assert f0.shape == uv.shape == files.read_volume().shape == (frames,)
        assert files.read_spec().shape == (1025, frames)
        resampled = -(-samples * 16000 // 44100)
        assert files.read_units().shape == (1, 72, max(resampled - 400, 0) // 320 + 1)


def test_sidecar_files_describe_their_clip(config, clips, folder):
    assert prepare_features(folder, config, "pm").made == 3
    files = ClipFiles(clips[0])
    f0, uv = files.read_f0()
    assert uv.mean() > 0.8 and abs(np.median(f0) - 220) < 1
    peak = files.read_spec()[:, 15].argmax().item()
    assert abs(peak * 44100 / 2048 - 220) < 44100 / 2048
    power = sum((0.2 / harmonic) ** 2 / 2 for harmonic in range(1, 6))
    assert np.median(files.read_volume()) == pytest.approx(power**0.5, rel=0.1)


def test_a_second_run_makes_nothing_and_builds_no_model(config, folder, clips, monkeypatch):
    prepare_features(folder, config, "pm")
    before = sidecar_bytes(clips)
    monkeypatch.setattr(feature_job, "build_encoder", None)
    monkeypatch.setattr(feature_job, "build_f0_predictor", None)
    report = prepare_features(folder, config, "pm")
    assert (report.made, report.ready) == (0, 3)
    assert sidecar_bytes(clips) == before


def test_what_a_killed_run_left_is_deleted_though_all_clips_are_ready(config, folder, clips):
    prepare_features(folder, config, "pm")
    left = clips[0].with_name(".0a1b2c3d4e5f6071.partial.npy")
    left.touch()
    os.utime(left, (0, 0))
    assert prepare_features(folder, config, "pm").ready == 3 and not left.exists()


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(config, folder, clips, monkeypatch):
    prepare_features(folder, config, "pm")
    before = sidecar_bytes(clips)
    for path in set(clips[0].parent.iterdir()) - set(clips):
        path.unlink()
    write, calls = ClipFiles.write_spec, []

    def killed_at_the_second(files, spec):
        calls.append(files)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(files, spec)

    monkeypatch.setattr(ClipFiles, "write_spec", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        prepare_features(folder, config, "pm")
    monkeypatch.undo()
    report = prepare_features(folder, config, "pm")
    assert (report.made, report.ready, report.kept) == (2, 1, {})
    assert report.reasons["that were unfinished"] >= 2, "units and F0 do not count as of another origin"
    assert sidecar_bytes(clips) == before


def like_the_original(clips):
    """Sidecar files with other values, in the layouts of so-vits-svc 4.1, without fingerprints."""
    for clip in clips:
        files = ClipFiles(clip)
        f0, uv = files.read_f0()
        np.save(files.f0, np.array([list(f0 + 1), list(uv)], dtype=object), allow_pickle=True)
        torch.save(files.read_units() + 1, files.units)
        files.fingerprint.unlink()


def test_matching_files_of_the_original_are_kept_and_named_once(config, folder, clips, monkeypatch, caplog):
    caplog.set_level("INFO")
    prepare_features(folder, config, "pm", mel=VocoderMel())
    like_the_original(clips)
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    monkeypatch.setattr(feature_job, "build_encoder", None)
    monkeypatch.setattr(feature_job, "build_f0_predictor", None)
    for _ in range(2):
        report = prepare_features(folder, config, "dio", mel=VocoderMel())
        assert (report.ready, report.made, set(report.kept.values())) == (3, 0, {3})
    assert {path: path.read_bytes() for path in before} == before
    report.show()
    (line,) = [line for line in caplog.messages if "remake=True" in line]
    assert "18 files" in line and "units 3" in line and "another speech encoder with as many features" in line
    monkeypatch.undo()
    reasons = prepare_features(folder, config, "dio", mel=VocoderMel(), remake=True).reasons
    assert reasons == {"as requested": 15, "as requested (the former F0 is now *.wav.f0.edited.npy)": 3}
    assert all(path.read_bytes() != content for path, content in before.items() if ".f0." in path.name)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("units", lambda files: files.write_units(files.read_units()[:, :50])),
        ("units", lambda files: files.write_units(files.read_units()[..., :-4])),
        ("f0", lambda files: np.save(files.f0, np.ones((2, 5)))),
        ("f0", lambda files: np.save(files.f0, np.stack(files.read_f0()) * np.nan)),
        ("f0", lambda files: np.save(files.f0, -np.stack(files.read_f0()))),
        ("f0", lambda files: files.f0.write_bytes(b"no array")),
        ("spec", lambda files: files.write_spec(files.read_spec()[:513])),
        ("volume", lambda files: np.save(files.volume, np.array(["loud"] * 40))),
        ("mel", lambda files: files.write_mel(files.read_mel()[:, :80])),
        ("augmented", lambda files: files.aug_mel.write_bytes(files.aug_mel.read_bytes()[:-9])),
    ],
)
def test_what_does_not_fit_its_clip_is_made_anew(config, folder, clips, name, spoil):
    prepare_features(folder, config, "pm", mel=VocoderMel())
    files = ClipFiles(clips[1])
    spoil(files)
    files.fingerprint.unlink()
    report = prepare_features(folder, config, "pm", mel=VocoderMel())
    note = " (the former F0 is now *.wav.f0.edited.npy)" if name == "f0" else ""
    assert report.reasons == {f"of unknown origin{note}": 1} and name not in report.kept and len(report.kept) == 5


def test_another_predictor_makes_f0_anew_and_nothing_else(config, folder, clips, monkeypatch):
    prepare_features(folder, config, "pm")
    before = sidecar_bytes(clips)
    monkeypatch.setattr(feature_job, "build_encoder", None)
    assert prepare_features(folder, config, "dio").reasons == {"that had other settings": 3}
    after = sidecar_bytes(clips)
    assert {name for (clip, name), content in after.items() if content != before[clip, name]} == {"f0", "fingerprint"}
    prepare_features(folder, config, "pm")
    assert sidecar_bytes(clips) == before


def test_half_precision_is_handed_to_the_encoder_and_is_another_recipe(config, folder, monkeypatch):
    prepare_features(folder, config, "pm")
    halves, build = [], feature_job.build_encoder
    monkeypatch.setattr(feature_job, "build_encoder", lambda *args: halves.append(args[3]) or build(*args))
    assert prepare_features(folder, config, "pm", half=True).reasons == {"that had other settings": 3}
    assert halves == [True]
    assert prepare_features(folder, config, "pm", half=True).ready == 3


def test_a_changed_clip_is_noticed(config, folder, clips):
    prepare_features(folder, config, "pm")
    make_clip(clips[1], 23000, f0=330)
    report = prepare_features(folder, config, "pm")
    assert (report.made, report.reasons) == (1, {"of changed clips": 4})
    assert abs(np.median(ClipFiles(clips[1]).read_f0()[0]) - 330) < 1


def test_two_workers_build_one_model_each_and_make_the_same_bytes(config, folder, clips):
    report = prepare_features(folder, config, "pm", num_processes=2)
    assert set(report.load_seconds) <= {0, 1} and report.made == 3
    before = sidecar_bytes(clips)
    prepare_features(folder, config, "pm", num_processes=1, remake=True)
    assert sidecar_bytes(clips) == before


def test_a_clip_is_read_once_whatever_is_made_of_it(config, folder, clips, monkeypatch):
    read, counted = [], feature_job.read_audio
    monkeypatch.setattr(feature_job, "read_audio", lambda path: read.append(path) or counted(path))
    prepare_features(folder, config, "pm", mel=VocoderMel())
    assert sorted(read) == sorted(clips)


def test_models_are_built_once_and_not_per_clip(config, folder, clips, monkeypatch):
    built = []
    for name in ("build_encoder", "build_f0_predictor"):
        original = getattr(feature_job, name)
        monkeypatch.setattr(feature_job, name, lambda *args, of=original: built.append(args[0]) or of(*args))
    prepare_features(folder, config, "pm")
    assert built == ["mfcc", "pm"]


def test_a_folder_that_cannot_be_written_to_is_named_in_a_sentence(config, folder, clips, monkeypatch):
    def refuse(path, *_):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(feature_job.ClipFiles, "write_f0", lambda self, *_: refuse(self.f0))
    with pytest.raises(UserError, match=r"f0.npy cannot be written or read: Read-only") as raised:
        prepare_features(folder, config, "pm")
    assert "Errno" not in str(raised.value) and "OSError" not in str(raised.value)


def test_one_bad_clip_does_not_stop_the_rest(config, folder, clips):
    (folder / "b").mkdir()
    (folder / "b" / "text.wav").write_text("no sound", encoding="utf-8")
    soundfile.write(folder / "b" / "nan.wav", np.full(30000, np.nan), 44100, subtype="FLOAT")
    soundfile.write(folder / "b" / "slow.wav", np.zeros(30000), 22050)
    soundfile.write(folder / "b" / "short.wav", np.zeros(4410), 44100)
    report = prepare_features(folder, config, "pm")
    assert (report.made, [clip.name for clip in report.too_short]) == (3, ["short.wav"])
    assert {clip.name for clip in report.failed} == {"text.wav", "nan.wav", "slow.wav"}
    for clip, sentence in report.failed.items():
        assert str(clip) in sentence
    assert "22050" in report.failed[folder / "b" / "slow.wav"]
    assert sorted(path.name for path in (folder / "b").iterdir()) == ["nan.wav", "short.wav", "slow.wav", "text.wav"]


def test_a_silent_clip_has_zero_f0_and_finite_sidecar_files(config, tmp_path):
    path = tmp_path / "44k" / "a" / "silent.wav"
    path.parent.mkdir(parents=True)
    soundfile.write(path, np.zeros(22050), 44100)
    assert prepare_features(tmp_path / "44k", config, "pm").made == 1
    files = ClipFiles(path)
    assert not np.any(files.read_f0()) and torch.isfinite(files.read_units()).all()


def test_a_bad_clip_fails_and_the_others_have_their_sidecar_files(config, tmp_path):
    clips = [make_clip(tmp_path / "44k" / "a" / f"{n}.wav", 15000 + 500 * n, f0=150 + 20 * n) for n in range(9)]
    clips[4].write_text("no sound", encoding="utf-8")
    soundfile.write(clips[7], np.full(30000, np.nan), 44100, subtype="FLOAT")
    report = prepare_features(tmp_path / "44k", config, "pm")
    assert (report.made, set(report.failed)) == (7, {clips[4], clips[7]})
    for number in (0, 5, 8):
        assert abs(np.median(ClipFiles(clips[number]).read_f0()[0]) - 150 - 20 * number) < 1


def test_without_its_file_the_default_predictor_gives_way_and_is_refused_when_named(
    config, folder, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    assert default_predictor() == "fcpe" and "pretrain/rmvpe.pt is missing, so fcpe measures F0" in caplog.text
    with pytest.raises(UserError, match="'rmvpe' needs the file pretrain/rmvpe.pt.* fcpe, crepe or pm"):
        prepare_features(folder, config, "rmvpe")
    Path("pretrain").mkdir()
    Path("pretrain/rmvpe.pt").touch()
    assert default_predictor() == "rmvpe"


def test_a_clip_that_ends_its_worker_takes_no_other_with_it(config, tmp_path, monkeypatch):
    clips = [make_clip(tmp_path / "44k" / "a" / f"{number}.wav", 15000) for number in range(4)]

    def dies_over_the_last_clip(job, tasks, workers):
        job.set_up(0, 1)
        for task in tasks:
            yield job.worker_died(task, "a worker process died") if task.files.wav == clips[3] else job(task)

    monkeypatch.setattr(features, "run_job", dies_over_the_last_clip)
    report = prepare_features(tmp_path / "44k", config, "pm")
    assert (report.made, list(report.failed)) == (3, [clips[3]])


def test_features_that_are_not_finite_are_never_kept(config, folder, clips, monkeypatch):
    class Broken:
        sampling_rate = 16000

        def __call__(self, audio):
            return torch.full((1, 72, 10), torch.nan)

    monkeypatch.setattr(feature_job, "build_encoder", lambda *_: Broken())
    with pytest.raises(UserError, match="finite"):
        prepare_features(folder, config, "pm")
    assert not any(ClipFiles(clip).units.exists() for clip in clips)


def test_unusable_settings_are_refused_before_any_work(config, folder, clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="'harvst'; known: harvest"):
        prepare_features(folder, config, "harvst")
    with pytest.raises(UserError, match="the device 'gpu'"):
        prepare_features(folder, config, "pm", device="gpu")
    with pytest.raises(UserError, match="num_processes is"):
        prepare_features(folder, config, "pm", num_processes=-1)
    config.model.ssl_dim = 256
    with pytest.raises(UserError, match=r"ssl_dim is 256.*72 features.*--speech_encoder mfcc"):
        prepare_features(folder, config, "pm")
    config.model.speech_encoder, config.model.ssl_dim = "vec256l9", 256
    with pytest.raises(UserError, match="checkpoint_best_legacy_500.pt"):
        prepare_features(folder, config, "pm")
    assert {path.suffix for path in clips[0].parent.iterdir()} == {".wav"}


def test_nothing_to_work_on_is_an_error(config, tmp_path):
    (tmp_path / "44k" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match="resample.py"):
        prepare_features(tmp_path / "44k", config, "pm")
    make_clip(tmp_path / "44k" / "a" / "x.wav", 4410)
    with pytest.raises(UserError, match="0.3 s or longer"):
        prepare_features(tmp_path / "44k", config, "pm")


def test_the_script_names_the_bad_clip_at_the_end_and_ends_with_1(config, folder, clips, tmp_path):
    (folder / "a 声" / "text.wav").write_text("no sound", encoding="utf-8")
    save_config(config, tmp_path / "configs" / "config.json")
    command = [sys.executable, ROOT / "preprocess_hubert_f0.py", "--in_dir", "44k", "--f0_predictor", "pm"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=120)
    assert done.returncode == 1
    assert "not made: 44k/a 声/text.wav" in done.stderr
    assert "3 clips made, 0 up to date, 1 failed" in done.stderr
    assert len(list(folder.glob("*/*.meta.json"))) == 3
