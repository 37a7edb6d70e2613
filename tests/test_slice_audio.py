"""Stage 0, through its script, and the choice of cuts by itself."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

import slice_audio
from modules.audio.loudness import frame_rms
from modules.console import UserError
from preparation import cutting
from preparation.cutting import LEDGER, CutSettings, _join_short, choose_ranges

RATE = 8000


def sung(*parts: float, rate: int = RATE) -> np.ndarray:
    """Seconds of sound, or of silence where negative."""
    rng = np.random.default_rng(len(parts))
    pieces = [rng.normal(0, 0.1 if part > 0 else 5e-4, int(abs(part) * rate)) for part in parts]
    return np.concatenate(pieces).astype(np.float32)


def put(path, audio, rate=RATE, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate, **how)


def choose(audio: np.ndarray, settings: CutSettings):
    slicer = settings.slicer(RATE)
    return choose_ranges(frame_rms(audio, slicer.window, slicer.hop), len(audio), slicer, settings)


@pytest.fixture
def run(tmp_path):
    def run_script(*flags: str) -> int:
        return slice_audio.main(["--in_dir", str(tmp_path / "in"), "--out_dir", str(tmp_path / "out"), *flags])

    return run_script


def lengths(folder) -> dict[str, float]:
    return {path.name: soundfile.info(path).duration for path in sorted(folder.glob("*.wav"))}


def test_every_clip_has_the_requested_length_and_no_sound_is_lost():
    rng = np.random.default_rng(1)
    for shortest, longest in ((1, 2), (1, 5), (2, 7)):
        settings = CutSettings(shortest, longest)
        for _ in range(10):
            parts = rng.uniform(0.2, 6, 14) * np.where(np.arange(14) % 2, -0.2, 1)
            audio = sung(*parts)
            clips, dropped = choose(audio, settings)
            assert all(shortest - 0.02 <= (end - start) / RATE <= longest for start, end in clips)
            left = np.ones(len(audio), bool)
            for start, end in clips + dropped:
                assert left[start:end].all()  # nothing twice
                left[start:end] = False
            assert np.abs(audio[left]).max(initial=0) < 5e-3


def test_a_stretch_without_silence_is_cut_where_it_is_quietest():
    audio = sung(18)
    audio[8 * RATE : 8 * RATE + 800] *= 0.2  # quieter, but far above the threshold
    clips, _ = choose(audio, CutSettings(5, 15))
    assert len(clips) == 2 and 8 * RATE <= clips[0][1] <= 8 * RATE + 800


def test_breaths_around_a_phrase_stay_with_it():
    audio = sung(6, -3, 6)
    breath = slice(int(8.7 * RATE), int(8.95 * RATE))  # before the second phrase, below the threshold
    audio[breath] = np.random.default_rng(0).normal(0, 0.004, breath.stop - breath.start)
    clips, _ = choose(audio, CutSettings())
    assert any(start <= breath.start and breath.stop <= end for start, end in clips)


def test_short_phrases_join_over_short_pauses_and_lonely_ones_are_dropped():
    clips, dropped = choose(sung(3.5, -2, 3.5, -2, 3.5), CutSettings())
    assert clips and not dropped
    clips, dropped = choose(sung(6, -20, 1, -20, 6), CutSettings())
    assert len(clips) == 2 and len(dropped) == 1


def test_a_short_stretch_joins_a_neighbour_over_a_silence_of_its_own_length_and_no_longer_one():
    for silence, joined in ((10, [(0, 45)]), (11, [(0, 10), (21, 46)])):
        assert _join_short([(0, 10), (10 + silence, 35 + silence)], shortest=12) == joined


def test_a_stretch_barely_longer_than_the_longest_clip_is_cut():
    settings = CutSettings(1, 2)
    slicer = settings.slicer(RATE)
    for surplus in (1, slicer.hop - 1, slicer.hop):
        samples = 2 * RATE + surplus
        clips, _ = choose(sung(3)[:samples], settings)
        assert len(clips) == 2 and clips[0][0] == 0 and clips[-1][1] == samples
        assert max(end - start for start, end in clips) <= 2 * RATE


def test_silence_makes_no_clips():
    assert choose(sung(-30), CutSettings()) == ([], [])


def test_speakers_folders_of_any_format_are_cut_and_counted(run, tmp_path, caplog):
    put(tmp_path / "in/名 前/長 い (1).flac", np.stack((sung(6, -2, 7), sung(6, -2, 7)), 1))
    put(tmp_path / "in/anna/b.mp3", sung(6, -2, 7, rate=16000), 16000)
    put(tmp_path / "in/anna/c.ogg", sung(40))
    assert run() == 0
    assert list(lengths(tmp_path / "out/名 前")) == ["長 い (1)_0000.wav", "長 い (1)_0001.wav"]
    found = lengths(tmp_path / "out/anna")
    assert len(found) >= 5 and all(4.98 <= seconds <= 15 for seconds in found.values())
    assert sum(seconds for name, seconds in found.items() if name.startswith("c_")) == pytest.approx(40, abs=0.01)
    total = sum(found.values()) + sum(lengths(tmp_path / "out/名 前").values())
    assert f"made {len(found) + 2} clips, {total:.1f} s in total" in caplog.text


def test_clips_hold_the_recordings_own_samples(run, tmp_path):
    samples = (sung(12, -2, 8) * 32768).astype(np.int16)
    put(tmp_path / "in/anna/a.wav", samples)
    assert run() == 0
    clips = [soundfile.read(path, dtype="int16")[0] for path in sorted((tmp_path / "out/anna").glob("*.wav"))]
    everywhere = np.lib.stride_tricks.sliding_window_view(samples, 50)
    for clip in clips:
        (start,) = np.flatnonzero((everywhere == clip[:50]).all(axis=1))
        np.testing.assert_array_equal(samples[start : start + len(clip)], clip)


def test_peaks_beyond_full_scale_are_lowered_not_cut_off(run, tmp_path):
    put(tmp_path / "in/anna/a.wav", sung(6) * 8, subtype="FLOAT")
    assert run() == 0
    (path,) = (tmp_path / "out/anna").glob("*.wav")
    clip = soundfile.read(path)[0]
    assert np.sum(np.abs(clip) > 0.979) <= 2 and np.abs(clip).max() == pytest.approx(0.98, abs=1e-3)


def test_a_folder_of_files_is_one_speaker(run, tmp_path):
    put(tmp_path / "in/a.wav", sung(6))
    assert run() == 0
    assert list(lengths(tmp_path / "out/in")) == ["a_0000.wav"]


def test_a_second_run_keeps_what_was_removed_by_hand_away(run, tmp_path):
    put(tmp_path / "in/anna/a.wav", sung(12, -2, 12))
    assert run() == 0
    (tmp_path / "out/anna/a_0000.wav").unlink()
    assert run() == 0
    assert list(lengths(tmp_path / "out/anna")) == ["a_0001.wav"]


def test_other_settings_replace_the_former_clips_and_no_other_files(run, tmp_path, capsys):
    put(tmp_path / "in/anna/a.wav", sung(12, -2, 12))
    put(tmp_path / "out/anna/mine.wav", sung(6))
    assert run("--min_length", "2", "--max_length", "5") == 0
    before = set(lengths(tmp_path / "out/anna"))
    assert run() == 0
    after = set(lengths(tmp_path / "out/anna"))
    assert len(after) < len(before) and after == {"a_0000.wav", "a_0001.wav", "mine.wav"}
    (tmp_path / "out" / LEDGER).unlink()
    kept = (tmp_path / "out/anna/a_0000.wav").read_bytes()
    assert run() == 2
    assert "was not cut from" in capsys.readouterr().err
    assert (tmp_path / "out/anna/a_0000.wav").read_bytes() == kept


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["b\udcfc", "b|", "b\\", "b\n", "b\u2028", "n" * 232])
def test_names_that_a_later_stage_refuses_are_named_and_do_not_stop_the_others(
    run, tmp_path, caplog, capsys, name
):
    put(tmp_path / "in/anna/a.wav", sung(6))
    for other in (f"in/anna/{name}.wav", "in/anna/z.wav"):
        shutil.copyfile(tmp_path / "in/anna/a.wav", tmp_path / other)
    for _ in range(2):
        caplog.clear()
        assert run() == 1
        assert list(lengths(tmp_path / "out/anna")) == ["a_0000.wav", "z_0000.wav"]
        (sentence,) = [line for line in caplog.messages if line.startswith("not cut: ")]
        assert f"{tmp_path}/in/anna/{name}.wav has" in sentence and ("rename" in sentence or "shorten" in sentence)
    for other in "az":
        (tmp_path / f"in/anna/{other}.wav").unlink()
    assert run() == 2
    assert "none of 1 recordings could be cut" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("speaker", ["b\udcfc", "b|", "b\u2028", "b" * 250])
def test_a_speaker_whose_name_a_later_stage_refuses_is_named_once(run, tmp_path, caplog, speaker):
    put(tmp_path / "in/anna/a.wav", sung(6))
    for name in "ab":
        put(tmp_path / "in/anna" / f"{name}.wav", sung(6))
    shutil.copytree(tmp_path / "in/anna", tmp_path / "in" / speaker)
    refused = len(speaker) < 250
    assert run() == int(refused)
    assert [line.startswith("not cut: ") for line in caplog.messages].count(True) == int(refused)
    assert (tmp_path / "out" / speaker).exists() != refused


def test_a_kill_between_ledger_and_clips_leaves_no_unknown_clips(run, tmp_path, monkeypatch):
    put(tmp_path / "in/anna/a.wav", sung(12, -2, 12))
    assert run("--min_length", "2", "--max_length", "5") == 0

    def killed(path, missing_ok=False):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        run()
    assert run() == 0
    assert set(lengths(tmp_path / "out/anna")) == {"a_0000.wav", "a_0001.wav"}


def test_a_run_that_was_killed_is_made_good(run, tmp_path):
    put(tmp_path / "in/anna/a.wav", sung(12, -2, 12))
    assert run() == 0
    whole = {path.name: path.read_bytes() for path in (tmp_path / "out/anna").glob("*.wav")}
    ledger = json.loads((tmp_path / "out" / LEDGER).read_text(encoding="utf-8"))
    ledger["anna/a.wav"]["done"] = False
    (tmp_path / "out" / LEDGER).write_text(json.dumps(ledger), encoding="utf-8")
    (tmp_path / "out/anna/a_0001.wav").unlink()
    assert run() == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "out/anna").glob("*.wav")} == whole


def test_bad_recordings_are_named_and_do_not_stop_the_others(run, tmp_path, caplog):
    put(tmp_path / "in/anna/good.wav", sung(6))
    put(tmp_path / "in/anna/nan.wav", np.full(60000, np.nan, np.float32), subtype="FLOAT")
    (tmp_path / "in/anna/text.wav").write_text("no sound", encoding="utf-8")
    assert run() == 1
    assert "nan.wav" in caplog.text and "text.wav" in caplog.text and "Traceback" not in caplog.text
    assert list(lengths(tmp_path / "out/anna")) == ["good_0000.wav"]


def test_nothing_to_cut_is_one_sentence(run, tmp_path, capsys):
    assert run() == 2
    (tmp_path / "in/anna").mkdir(parents=True)
    assert run() == 2
    (tmp_path / "in/anna/text.wav").write_text("no sound", encoding="utf-8")
    assert run() == 2
    assert capsys.readouterr().err.count("error: ") == 3
    assert not (tmp_path / "out").exists()


def test_recordings_that_give_no_clip_at_all_are_an_error_each_time(run, tmp_path, capsys):
    put(tmp_path / "in/anna/a.wav", sung(2))
    for _ in range(2):
        assert run() == 2
        assert "--min_length" in capsys.readouterr().err
    put(tmp_path / "in/anna/b.wav", sung(6))
    assert run() == 0
    assert run() == 0


def test_a_recording_below_the_threshold_is_named_with_its_level_and_the_cure(run, tmp_path, capsys, caplog):
    put(tmp_path / "in/anna/a.wav", sung(-20))
    assert run() == 2
    assert "a.wav is -65 dB, and what is below -40 dB (--threshold)" in capsys.readouterr().err
    put(tmp_path / "in/anna/b.wav", sung(6))
    assert run() == 1
    assert "not cut: the loudest moment" in caplog.text
    assert list(lengths(tmp_path / "out/anna")) == ["b_0000.wav"]


@pytest.mark.parametrize("case", ["offset", "hum", "cancel", "centre of six"])
def test_pauses_are_found_and_clips_are_usable_whatever_the_recording(run, tmp_path, case):
    clean = sung(6, -4, 6)
    audio = {
        "offset": clean + 0.03,
        "hum": clean + 0.03 * np.sin(2 * np.pi * 50 / RATE * np.arange(len(clean))),
        "cancel": np.stack((clean, -clean), 1),
        "centre of six": np.stack([clean * (channel == 2) for channel in range(6)], 1),
    }[case]
    put(tmp_path / "in/anna/a.wav", audio, subtype="FLOAT")
    assert run() == 0
    clips = [soundfile.read(path)[0] for path in sorted((tmp_path / "out/anna").glob("*.wav"))]
    assert [len(clip) / RATE for clip in clips] == pytest.approx([6.3, 6.3], abs=0.3)
    assert all(abs(clip.mean()) < 1e-3 and np.abs(clip).max() > 0.2 for clip in clips)


def test_a_recording_that_is_cut_off_is_cut_as_far_as_it_goes_and_named(run, tmp_path, caplog):
    caplog.set_level("INFO", "svc")
    put(tmp_path / "in/anna/a.wav", sung(20))
    data = (tmp_path / "in/anna/a.wav").read_bytes()
    (tmp_path / "in/anna/a.wav").write_bytes(data[: len(data) // 2])
    assert run() == 1
    assert sum(lengths(tmp_path / "out/anna").values()) == pytest.approx(10, abs=0.1)
    assert "a.wav is cut off: its header gives 20.0 s, 10.0 s are there" in caplog.text


def test_a_recording_over_which_the_program_fails_does_not_stop_the_others(run, tmp_path, caplog, monkeypatch):
    for name in "ab":
        put(tmp_path / f"in/anna/{name}.wav", sung(6))
    plan = cutting.plan_clips

    def fail_at_a(sound, settings):
        if sound.path.stem == "a":
            raise MemoryError
        return plan(sound, settings)

    monkeypatch.setattr(cutting, "plan_clips", fail_at_a)
    assert run() == 1
    assert "a.wav: the memory is too small" in caplog.text
    assert list(lengths(tmp_path / "out/anna")) == ["b_0000.wav"]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("in", "in"),
        ("in/anna", "in"),
        ("in", "in/clips"),
        ("in", "link"),
        ("link/anna", "in"),
        ("in", "linked speaker"),
    ],
)
def test_clips_never_come_among_the_recordings_that_they_are_cut_from(tmp_path, capsys, source, target):
    put(tmp_path / "in/anna/a.wav", sung(6, -2, 7))
    (tmp_path / "link").symlink_to(tmp_path / "in")
    (tmp_path / "linked speaker").mkdir()
    (tmp_path / "linked speaker/anna").symlink_to(tmp_path / "in/anna")
    assert slice_audio.main(["--in_dir", str(tmp_path / source), "--out_dir", str(tmp_path / target)]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "--out_dir" in sentence and [path.name for path in (tmp_path / "in").rglob("*.wav")] == ["a.wav"]


def test_lengths_that_leave_no_choice_are_refused():
    with pytest.raises(UserError, match="at least twice"):
        CutSettings(5, 9)


@pytest.mark.parametrize(
    "entry",
    [
        {"made_from": {}, "clips": ["../mine.wav"], "done": True},
        {"made_from": {}, "clips": ["alto/../../mine.wav"], "done": True},
        {"made_from": {}, "clips": ["/mine.wav"], "done": True},
        {"made_from": {}, "clips": [5], "done": True},
        {"made_from": {}, "clips": {}, "done": True},
        {"clips": [], "done": True},
        [],
        None,
    ],
)
def test_an_untrusted_ledger_deletes_no_other_files(run, tmp_path, capsys, entry):
    put(tmp_path / "in" / "alto" / "a.wav", sung(6))
    (tmp_path / "mine.wav").touch()
    assert run() == 0
    ledger = next(tmp_path.rglob(LEDGER))
    for content in (json.dumps({"alto/a.wav": entry}), "[" * 100_000, "[]", '"x"', "\xff"):
        ledger.write_text(content, encoding="latin-1")  # of which the last is no UTF-8
        assert run() == 2
        assert "cannot be read; remove it" in capsys.readouterr().err
    assert (tmp_path / "mine.wav").exists()
