"""Stage 1, through its script."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

import resample
from modules.audio.loudness import measure_levels
from preparation import fingerprints, resampling
from preparation.clip_ledger import LEDGER
from preparation.resampling import TRIM_FRAMES, trim_silence

RATE = 22050


def tone(seconds: float = 0.5, rate: int = RATE, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * 330 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def put(path, audio, rate=RATE, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate, **how)


@pytest.fixture
def run(tmp_path):
    """Run the script on ``raw`` and ``out`` under the test's folder."""

    def run_script(*flags: str) -> int:
        folders = ["--in_dir", str(tmp_path / "raw"), "--out_dir2", str(tmp_path / "out"), "--num_processes", "1"]
        return resample.main([*folders, *flags])

    return run_script


def made(path):
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype) == (44100, 1, "PCM_16")
    return soundfile.read(path, dtype="int16")[0].astype(np.int64)


def test_any_recording_becomes_a_mono_16_bit_clip_at_full_scale(run, tmp_path):
    put(tmp_path / "raw/名 前/空 格 (1).wav", np.stack((tone(rate=96000), tone(rate=96000)), 1), 96000, subtype="FLOAT")
    put(tmp_path / "raw/anna/take.one.flac", tone())
    put(tmp_path / "raw/anna/b.ogg", tone())
    put(tmp_path / "raw/anna/c.mp3", tone())
    put(tmp_path / "raw/anna/loud.wav", tone(level=4.0), subtype="FLOAT")
    assert run() == 0
    names = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.wav")}
    assert names == {"名 前/空 格 (1).wav", "anna/take.one.wav", "anna/b.wav", "anna/c.wav", "anna/loud.wav"}
    for name in names:
        assert np.abs(made(tmp_path / "out" / name)).max() == 32767
    assert abs(len(made(tmp_path / "out/anna/take.one.wav")) - 22050) <= 1024


def test_without_loudness_step_the_level_stays_and_only_peaks_beyond_full_scale_are_lowered(run, tmp_path):
    put(tmp_path / "raw/anna/quiet.wav", tone(level=0.1))
    put(tmp_path / "raw/anna/loud.wav", tone(level=1.7), subtype="FLOAT")
    square = np.sign(tone(rate=48000)) * 0.999  # its resampled edges overshoot
    put(tmp_path / "raw/anna/square.wav", square, 48000)
    assert run("--skip_loudnorm") == 0
    assert np.abs(made(tmp_path / "out/anna/quiet.wav")).max() == pytest.approx(3277, rel=0.01)
    for name in ("loud", "square"):
        clip = made(tmp_path / f"out/anna/{name}.wav")
        assert np.abs(clip).max() == pytest.approx(0.98 * 32768, abs=2)
        assert np.abs(np.diff(clip)).max() < 65000  # a wrapped sample jumps by the whole range


def test_clips_that_cannot_be_used_are_named_and_do_not_stop_the_others(run, tmp_path, caplog):
    raw = tmp_path / "raw/anna"
    put(raw / "good.wav", tone())
    put(raw / "silent.wav", np.zeros(8000, np.float32))
    put(raw / "nan.wav", np.full(8000, np.nan, np.float32), subtype="FLOAT")
    (raw / "text.wav").write_text("no sound", encoding="utf-8")
    (raw / "notes.txt").write_text("la la la", encoding="utf-8")
    (raw / ".hidden.wav").write_text("", encoding="utf-8")
    put(raw / "good.flac", tone())
    put(tmp_path / "raw/loose.wav", tone())
    (raw / "inner").mkdir()
    assert run() == 1
    for name in ("silent.wav", "nan.wav", "text.wav", "notes.txt", ".hidden.wav", "good.wav", "loose.wav", "inner"):
        assert name in caplog.text
    assert "Traceback" not in caplog.text
    assert [path.name for path in (tmp_path / "out").rglob("*.wav")] == ["good.wav"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["b\udcfc", "b|", "b\\", "b\n", "b\u2028", "n" * 238])
def test_names_that_a_later_stage_refuses_are_named_and_do_not_stop_the_others(
    run, tmp_path, caplog, name
):
    put(tmp_path / "raw/anna/a.wav", tone())
    for folder, other in (("anna", name), ("anna", "z"), (f"{name[:20]}", "a")):
        (tmp_path / "raw" / folder).mkdir(exist_ok=True)
        shutil.copyfile(tmp_path / "raw/anna/a.wav", tmp_path / "raw" / folder / f"{other}.wav")
    speaker_is_refused = len(name) < 20
    for _ in range(2):
        caplog.clear()
        assert run() == 1
        assert [path.name for path in sorted((tmp_path / "out/anna").iterdir())] == ["a.wav", "z.wav"]
        sentences = [line for line in caplog.messages if line.startswith("not prepared: ")]
        assert len(sentences) == 1 + speaker_is_refused
        assert any(f"{tmp_path}/raw/anna/{name}.wav has" in sentence for sentence in sentences)
        assert (tmp_path / "out" / name[:20]).exists() != speaker_is_refused


def test_the_longest_allowed_name_is_prepared(run, tmp_path):
    put(tmp_path / "raw/anna" / f"{'n' * 237}.flac", tone())
    assert run() == 0
    assert [path.name for path in (tmp_path / "out/anna").iterdir()] == [f"{'n' * 237}.wav"]


@pytest.mark.parametrize(("one", "other"), [("Take.wav", "take.flac"), ("caf\u00e9.wav", "cafe\u0301.flac")])
def test_recordings_whose_clips_are_one_file_elsewhere_do_not_replace_each_other(run, tmp_path, caplog, one, other):
    for name in (one, other):
        put(tmp_path / "raw/anna" / name, tone())
    first, second = sorted((one, other))
    assert run() == 1
    assert [path.stem for path in (tmp_path / "out/anna").iterdir()] == [Path(first).stem]
    assert f"{tmp_path}/raw/anna/{second} and {first} would be one file on Windows or macOS" in caplog.text


def test_hidden_folders_are_named(run, tmp_path, caplog):
    caplog.set_level("INFO", "svc")
    for speaker in ("anna", ".anna"):
        put(tmp_path / "raw" / speaker / "a.wav", tone())
    assert run() == 0
    assert f"passed over {tmp_path}/raw/.anna: a hidden folder" in caplog.messages
    assert not (tmp_path / "out/.anna").exists()


def test_nothing_to_do_is_one_sentence_that_shows_the_layout(run, tmp_path, capsys):
    assert run() == 2
    (tmp_path / "raw/anna").mkdir(parents=True)
    assert run() == 2
    put(tmp_path / "raw/anna/silent.wav", np.zeros(8000, np.float32))
    assert run() == 2
    sentences = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 3
    assert all("<speaker>" in sentence for sentence in sentences[:2]) and "silence" in sentences[2]


def test_wrong_flags_are_refused(run, tmp_path):
    put(tmp_path / "raw/anna/a.wav", tone())
    assert run("--sr2", "0") == 2
    assert run("--num_processes", "-1") == 2
    assert resample.main(["--in_dir", str(tmp_path / "raw"), "--out_dir2", str(tmp_path / "raw")]) == 2
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert run("--out_dir2", str(tmp_path / "file")) == 2


def test_a_speakers_folder_that_is_a_link_to_the_recordings_is_not_written_to(run, tmp_path, capsys):
    put(tmp_path / "raw/anna/a.wav", tone())
    before = (tmp_path / "raw/anna/a.wav").read_bytes()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/anna").symlink_to(tmp_path / "raw/anna")
    assert run() == 2 and "--out_dir2" in capsys.readouterr().err
    assert (tmp_path / "raw/anna/a.wav").read_bytes() == before


def test_a_second_run_makes_only_what_is_missing_or_changed(run, tmp_path):
    for name in "abc":
        put(tmp_path / f"raw/anna/{name}.wav", tone())
    assert run() == 0
    clips = {name: tmp_path / f"out/anna/{name}.wav" for name in "abc"}
    times = {name: path.stat().st_mtime_ns for name, path in clips.items()}
    clips["a"].unlink()
    time.sleep(0.02)
    put(tmp_path / "raw/anna/b.wav", tone(0.7))
    assert run() == 0
    assert {name: path.stat().st_mtime_ns == times[name] for name, path in clips.items()} == {
        "a": False,
        "b": False,
        "c": True,
    }
    assert run("--skip_loudnorm") == 0
    assert all(np.abs(made(path)).max() < 11000 for path in clips.values())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no time of the last change")
def test_a_recording_replaced_by_an_older_file_is_prepared_again(run, tmp_path):
    recording, clip = tmp_path / "raw/anna/a.wav", tmp_path / "out/anna/a.wav"
    put(recording, tone())
    assert run() == 0
    former = clip.read_bytes()
    time.sleep(0.02)
    put(recording, tone(0.7))
    os.utime(recording, ns=(0, 0))  # as a copy that keeps the modification time
    assert run() == 0 and clip.read_bytes() != former


def test_clips_of_deleted_recordings_are_named_and_pruned_but_not_those_of_the_user(run, tmp_path, caplog):
    caplog.set_level("INFO", "svc")
    for name in ("anna/a", "anna/b", "anna/edited", "berta/c", "berta/stays", "carla/only"):
        put(tmp_path / f"raw/{name}.flac", tone())
    out = tmp_path / "out"
    put(out / "anna/mine.wav", tone(), 44100)
    assert run() == 0
    put(out / "anna/edited.wav", tone(0.7), 44100)
    for name in ("anna/b.wav.f0.npy", "anna/b.spec.pt", "anna/b.wav.meta.json", "anna/b.wav.f0.edited.npy"):
        (out / name).write_bytes(b"")
    (out / "anna/a.wav.soft.pt").write_bytes(b"")
    for name in ("anna/b", "anna/edited", "berta/c", "carla/only"):
        (tmp_path / f"raw/{name}.flac").unlink()
    (tmp_path / "raw/anna/edited.txt").write_text("a note", encoding="utf-8")
    caplog.clear()
    assert run() == 1  # carla has no clip that is up to date
    (gone,) = [line for line in caplog.messages if "recordings were deleted" in line and ": 3 clips (" in line]
    assert (
        all(f"{out}/{name}" in gone for name in ("anna/b.wav", "berta/c.wav", "carla/only.wav")) and "--prune" in gone
    )
    assert any("edited: 2 clips (" in line and "mine.wav" in line and "edited.wav" in line for line in caplog.messages)
    assert (out / "anna/b.wav").exists()
    assert run("--prune") == 1
    left = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if not path.name.startswith("."))
    clips = ["anna/a.wav", "anna/a.wav.soft.pt", "anna/edited.wav", "anna/mine.wav", "berta/stays.wav"]
    assert left == sorted(["anna", "berta", *clips])
    caplog.clear()
    assert run() == 1 and "were deleted" not in caplog.text


def test_clips_of_another_folder_and_of_a_moved_project_are_known(run, tmp_path, caplog):
    caplog.set_level("INFO", "svc")
    put(tmp_path / "one/raw/anna/a.wav", tone())
    put(tmp_path / "one/raw/anna/b.wav", tone())
    put(tmp_path / "other/anna/x.wav", tone())

    def prepare(root, source, *flags):
        folders = ["--in_dir", str(tmp_path / root / source), "--out_dir2", str(tmp_path / root / "out")]
        return resample.main([*folders, "--num_processes", "1", *flags])

    assert prepare("one", "raw") == 0
    assert prepare("one", "../other", "--prune") == 0, "clips of raw are no business of this run"
    names = sorted(path.name for path in (tmp_path / "one/out/anna").iterdir())
    assert names == ["a.wav", "b.wav", "x.wav"] and "deleted" not in caplog.text and "or edited" not in caplog.text
    (tmp_path / "one").rename(tmp_path / "two")
    (tmp_path / "two/raw/anna/b.wav").unlink()
    assert prepare("two", "raw", "--prune") == 0
    assert sorted(path.name for path in (tmp_path / "two/out/anna").iterdir()) == ["a.wav", "x.wav"]


def test_clips_without_recording_are_read_only_when_they_have_changed(run, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO", "svc")
    for name in "abc":
        put(tmp_path / f"raw/anna/{name}.wav", tone())
    assert run() == 0
    for name in "bc":
        (tmp_path / f"raw/anna/{name}.wav").unlink()
    os.utime(tmp_path / "out/anna/c.wav", (1, 1))
    read, digest = [], fingerprints._digest
    monkeypatch.setattr(fingerprints, "_digest", lambda path: read.append(path.name) or digest(path))
    assert run() == 0
    assert read == ["c.wav"] and ": 2 clips (" in caplog.text


def test_a_truncated_ledger_loses_only_its_last_line(run, tmp_path):
    for name in "abc":
        put(tmp_path / f"raw/anna/{name}.wav", tone())
    assert run() == 0
    ledger = tmp_path / "out" / LEDGER
    ledger.write_text(ledger.read_text(encoding="utf-8")[:-9], encoding="utf-8")
    put(tmp_path / "raw/anna/d.wav", tone())
    assert run() == 0
    for path in (tmp_path / "raw/anna").iterdir():
        if path.name != "a.wav":
            path.unlink()
    assert run("--prune") == 0
    assert sorted(path.name for path in (tmp_path / "out/anna").iterdir()) == ["a.wav", "c.wav"]


def test_worker_processes_make_the_same_clips_and_report_failures(run, tmp_path, caplog):
    for name in "abc":
        put(tmp_path / f"raw/anna/{name}.wav", tone())
    (tmp_path / "raw/anna/bad.wav").write_text("no sound", encoding="utf-8")
    assert run("--num_processes", "2") == 1
    assert "bad.wav" in caplog.text
    many = {path.name: path.read_bytes() for path in (tmp_path / "out/anna").glob("*.wav")}
    assert run("--out_dir2", str(tmp_path / "single")) == 1
    assert len(many) == 3
    assert many == {path.name: path.read_bytes() for path in (tmp_path / "single/anna").glob("*.wav")}


def test_processes_are_one_a_cpu_for_0_and_all_but_two_without_the_flag(tmp_path, monkeypatch):
    counts = []
    monkeypatch.setattr(resampling, "run_job", lambda job, items, n: counts.append(n) or (job(item) for item in items))
    monkeypatch.setattr("preparation.workers.cpu_count", lambda: 6)
    monkeypatch.setattr(resampling, "cpu_count", lambda: 6)
    put(tmp_path / "raw/anna/a.wav", tone())
    for processes in (0, None, 3):
        resampling.resample_folder(tmp_path / "raw", tmp_path / str(processes), 44100, processes=processes)
    assert counts == [6, 4, 3]


def test_what_a_killed_run_left_is_deleted_though_all_clips_are_ready(run, tmp_path):
    put(tmp_path / "raw/anna/a.wav", tone())
    assert run() == 0
    for folder in ("out", "out/anna"):
        left = tmp_path / folder / ".0a1b2c3d4e5f6071.partial.wav"
        left.touch()
        os.utime(left, (0, 0))
    assert run() == 0
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == [".resample.json", LEDGER, "a.wav", "anna"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
def test_a_run_that_is_ended_from_outside_leaves_no_process_behind(tmp_path):
    for number in range(30):
        put(tmp_path / f"raw/anna/{number}.wav", tone(10))
    command = [sys.executable, "resample.py", "--in_dir", tmp_path / "raw", "--out_dir2", tmp_path / "out"]
    process = subprocess.Popen(
        [*command, "--num_processes", "2"], cwd=Path(resample.__file__).parent, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not list(tmp_path.glob("out/anna/*.wav")):
            assert process.poll() is None
            time.sleep(0.02)
        process.terminate()
        process.communicate(timeout=20)  # ends when nobody holds the output any longer, the workers included
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGTERM
    assert len(list(tmp_path.glob("out/anna/*.wav"))) < 30


def test_recordings_shorter_than_a_clip_are_named_and_count_as_failed(run, tmp_path, capsys, caplog):
    put(tmp_path / "raw/anna/short.wav", tone(0.1))
    assert run() == 2
    assert "short.wav holds 0.10 s of sound" in capsys.readouterr().err
    put(tmp_path / "raw/anna/padded.wav", np.concatenate((np.zeros(RATE, np.float32), tone(0.1))))
    put(tmp_path / "raw/anna/long.wav", tone(0.4))
    assert run() == 1
    assert "short.wav" in caplog.text and "padded.wav" in caplog.text
    assert [path.name for path in (tmp_path / "out").rglob("*.wav")] == ["long.wav"]


@pytest.mark.parametrize("case", ["offset", "hum", "cancel", "centre of six"])
def test_silence_is_trimmed_and_clips_are_usable_whatever_the_recording(run, tmp_path, case):
    silence = np.zeros(RATE, np.float32)
    clean = np.concatenate((silence, tone(2), silence))
    audio = {
        "offset": clean + 0.03,
        "hum": clean + 0.03 * np.sin(2 * np.pi * 50 / RATE * np.arange(len(clean))),
        "cancel": np.stack((clean, -clean), 1),
        "centre of six": np.stack([clean * (channel == 2) for channel in range(6)], 1),
    }[case]
    put(tmp_path / "raw/anna/a.wav", audio, subtype="FLOAT")
    assert run() == 0
    clip = made(tmp_path / "out/anna/a.wav")
    assert len(clip) / 44100 == pytest.approx(2, abs=0.15)
    assert abs(clip.mean()) < 33 and np.abs(clip).max() == 32767


def test_a_recording_that_is_cut_off_is_prepared_as_far_as_it_goes_and_named(run, tmp_path, caplog):
    caplog.set_level("INFO", "svc")
    put(tmp_path / "raw/anna/a.wav", tone(2))
    data = (tmp_path / "raw/anna/a.wav").read_bytes()
    (tmp_path / "raw/anna/a.wav").write_bytes(data[: len(data) // 2])
    assert run() == 1
    assert "incomplete: " in caplog.text and "its header gives 2.0 s, 1.0 s are there" in caplog.text
    assert len(made(tmp_path / "out/anna/a.wav")) == pytest.approx(44100, abs=100)


def test_trimming_is_librosas():
    rng = np.random.default_rng(5)
    quiet, loud = rng.normal(0, 1e-4, 20000), rng.normal(0, 0.2, 30000)
    for parts in ((quiet, loud, quiet), (loud,), (quiet[:3000], loud), (loud * 1e-6,), (loud[:300],)):
        audio = np.concatenate(parts).astype(np.float32)
        expected, _ = librosa.effects.trim(audio, top_db=40)
        levels = measure_levels(audio, RATE, *TRIM_FRAMES)
        np.testing.assert_array_equal(trim_silence(audio, levels), expected)


def test_a_link_to_a_speakers_folder_that_is_not_there_is_named(tmp_path, caplog):
    soundfile.write(tmp_path / "elsewhere.wav", np.random.default_rng(0).normal(0, 0.1, 22050), 22050)
    (tmp_path / "in" / "anna").mkdir(parents=True)
    (tmp_path / "elsewhere.wav").rename(tmp_path / "in" / "anna" / "a.wav")
    (tmp_path / "in" / "berta").symlink_to(tmp_path / "unplugged" / "berta")
    arguments = ["--in_dir", str(tmp_path / "in"), "--out_dir2", str(tmp_path / "out"), "--num_processes", "1"]
    assert resample.main(arguments) == 1
    assert f"passed over {tmp_path / 'in' / 'berta'}: a link whose target does not exist" in caplog.text
    assert f"no clip was made from {tmp_path / 'in' / 'berta'}" in caplog.text
