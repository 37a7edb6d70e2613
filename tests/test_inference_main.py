"""The script of stage 5: names of songs and results, several songs and speakers, and one sentence for wrong input."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from inference import jobs
from inference.conversion import Conversion
from inference.jobs import plan
from inference.svc import Svc
from inference_main import main
from modules.console import UserError, printable
from tests.diffusion_files import write_diffusion
from tests.test_svc import write_model, write_song
from tests.tiny import tiny_config


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working folder with a model in logs/44k and nothing else."""
    (tmp_path / "logs" / "44k").mkdir(parents=True)
    write_model(tmp_path / "logs" / "44k")
    (tmp_path / "raw").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def results(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "results").iterdir())


def refused(capsys, *argv: str) -> str:
    """The error line of the script, which must exit with 2 and write nothing."""
    assert main(argv) == 2
    assert not Path("results").is_dir() or not list(Path("results").iterdir())
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


# -- what is written --------------------------------------------------------------------------------------------------


def test_the_result_has_the_published_name_the_models_rate_and_the_songs_length(here, capsys):
    write_song(here / "raw" / "a.wav", 1.0, rate=32000)
    assert main(["-n", "a.wav", "-s", "alto"]) == 0
    assert results(here) == ["a.wav_0key_alto_sovits_fcpe.flac"]
    assert capsys.readouterr().out.strip() == str(Path("results/a.wav_0key_alto_sovits_fcpe.flac"))
    info = soundfile.info(here / "results" / "a.wav_0key_alto_sovits_fcpe.flac")
    assert (info.samplerate, info.channels, info.frames, info.format) == (44100, 1, 44100, "FLAC")


def test_every_song_goes_to_every_speaker_and_missing_shifts_repeat_the_first(here):
    for name in "abc":
        write_song(here / "raw" / f"{name}.wav", 0.5)
    assert main(["-n", "a", "b.wav", "c", "-t", "-3", "2", "-s", "alto", "1", "-wf", "wav", "-f0p", "dio"]) == 0
    expected = [
        f"{name}_{shift}key_{speaker}_sovits_dio.wav"
        for name, shift in [("a", -3), ("b.wav", 2), ("c", -3)]
        for speaker in ("1", "alto")
    ]
    assert results(here) == sorted(expected)


def test_a_folder_and_a_pattern_stand_for_all_their_recordings(here):
    for name in ("album/b.flac", "album/a.wav", "album/inner/c.wav", "x.ogg", "y.ogg", "[live] z.wav"):
        (here / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        write_song(here / "raw" / name, 0.3)
    for name in ("album/notes.txt", "README.md", "album/.hidden.wav"):
        (here / "raw" / name).write_text("words", encoding="utf-8")
    where = Path("results"), "wav"

    def planned(*names, shifts=(0,)):
        jobs, missing = plan(names, shifts, ["alto"], Conversion("alto"), "sovits", *where)
        return [(job.song.as_posix(), job.output.name.split("_")[0], job.conversion.tran) for job in jobs], missing

    songs, missing = planned("album", "*.ogg", "nothing*", "[live] z", shifts=(0, 2))
    assert songs == [
        ("raw/album/a.wav", "a.wav", 0), ("raw/album/b.flac", "b.flac", 0),
        ("raw/x.ogg", "x.ogg", 2), ("raw/y.ogg", "y.ogg", 2), ("raw/[live] z.wav", "[live] z", 0),
    ]  # fmt: skip
    assert len(missing) == 1 and "no recording matches 'nothing*'" in missing[0] and "x.ogg" in missing[0]
    assert planned("album")[0] == planned("raw/album/")[0]
    assert [name for _, name, _ in planned(f"{here}/raw/al*/*.wav")[0]] == ["a.wav"]
    assert len(planned("*")[0]) == 3, "words are no song"
    with pytest.raises(UserError, match="two conversions would be written"):
        planned("album", "album/a.wav")


def test_a_folder_without_recordings_is_refused(here, capsys):
    (here / "raw/empty/inner").mkdir(parents=True)
    assert "the folder raw/empty holds no recording" in refused(capsys, "-n", "empty", "-s", "alto")


def test_shifts_may_be_fractions_and_whole_ones_are_named_as_published(here):
    write_song(here / "raw" / "a.wav", 0.3)
    assert main(["-n", "a", "a.wav", "-t", "-0.5", "12.0", "-s", "alto", "-wf", "wav"]) == 0
    assert results(here) == ["a.wav_12key_alto_sovits_fcpe.wav", "a_-0.5key_alto_sovits_fcpe.wav"]


@pytest.mark.parametrize("shift", ["a", "nan", "inf", "1,5"])
def test_a_shift_that_is_no_number_is_refused(here, capsys, shift):
    write_song(here / "raw" / "a.wav", 0.3)
    with contextlib.suppress(SystemExit):
        assert main(["-n", "a", "-s", "alto", "-t", shift]) == 2
    assert "-t" in capsys.readouterr().err and not (here / "results").exists()


def test_a_result_that_replaces_one_of_a_former_run_is_named(here, caplog):
    caplog.set_level("INFO", "svc")
    write_song(here / "raw" / "a.wav", 0.3)
    sentence = "results/a_0key_alto_sovits_fcpe.flac replaces the result of a former run"
    for times in (0, 1):
        assert main(["-n", "a", "-s", "alto"]) == 0
        assert caplog.messages.count(sentence) == times


def test_automatic_f0_stands_in_the_name(here):
    write_song(here / "raw" / "a.wav", 0.5)
    assert main(["-n", "a", "-s", "alto", "-a"]) == 0
    assert results(here) == ["a_auto_alto_sovits_fcpe.flac"]


@pytest.mark.parametrize("name", ["空 格 (1).wav", "Größe.flac", "two.dots.ogg"])
def test_songs_of_any_name_and_format_are_read_and_nothing_is_left_beside_them(here, name):
    soundfile.write(here / "raw" / name, 0.1 * np.sin(np.arange(22050) / 20), 22050)
    assert main(["-n", name, "-s", "tenor"]) == 0
    assert [path.name for path in (here / "raw").iterdir()] == [name]
    assert results(here) == [f"{name}_0key_tenor_sovits_fcpe.flac"]


def test_a_song_may_be_given_as_a_path(here):
    (here / "elsewhere").mkdir()
    song = write_song(here / "elsewhere" / "song.wav", 0.5)
    assert main(["-n", "elsewhere/song", "-s", "alto", "-wf", "wav"]) == 0
    assert main(["-n", str(song), "-s", "alto", "-wf", "wav"]) == 0
    first, second = (soundfile.read(here / "results" / name)[0] for name in results(here))
    np.testing.assert_array_equal(first, second)


def test_the_same_command_twice_gives_the_same_file_and_another_seed_another(here):
    write_song(here / "raw" / "a.wav", 0.5)
    for folder, more in [("one", []), ("two", []), ("three", ["--seed", "1"])]:
        assert main(["-n", "a", "-s", "alto", "-wf", "wav", "-ns", "5", "-o", folder, *more]) == 0
    one, two, three = ((here / f / "a_0key_alto_sovits_fcpe.wav").read_bytes() for f in ("one", "two", "three"))
    assert one == two
    assert one != three


def test_the_newest_model_is_taken_and_its_only_speaker(here):
    config = tiny_config()
    config.model.ssl_dim, config.spk = 72, {"solo": 0}
    model, _ = write_model(here / "logs" / "44k", config)
    weights = torch.load(model, weights_only=True)
    for step in (800, 1600):
        torch.save(weights, model.with_name(f"G_{step}.pth"))
    model.write_bytes(b"not this one")
    write_song(here / "raw" / "a.wav", 0.5)
    assert main(["-n", "a"]) == 0
    assert results(here) == ["a_0key_solo_sovits_fcpe.flac"]


def test_the_config_is_sought_beside_the_model(here):
    (here / "other").mkdir()
    (here / "logs" / "44k" / "config.json").rename(here / "other" / "config.json")
    (here / "logs" / "44k" / "G_1.pth").rename(here / "other" / "mine.pth")
    write_song(here / "raw" / "a.wav", 0.5)
    assert main(["-m", "other/mine.pth", "-n", "a", "-s", "alto"]) == 0


def test_a_mix_needs_no_choice_of_a_speaker_and_is_named_as_published(here, monkeypatch):
    monkeypatch.setattr("spkmix.spk_mix_map", {0: [[0, 1, 1, 0]], 1: [[0, 1, 0, 1]]})
    write_song(here / "raw" / "a.wav", 0.5)
    assert main(["-n", "a", "-usm"]) == 0
    assert results(here) == ["a_0key_spk_mix_sovits_fcpe.flac"]


def test_of_several_diffusion_models_the_newest_is_taken_with_the_yaml_beside_it(here):
    folder = here / "logs" / "44k" / "diffusion"
    folder.mkdir()
    model, _ = write_diffusion(folder)
    model.rename(folder / "model_2000.pt")
    for name in ("model_0.pt", "model_400.pt", "model_2000.state.pth"):
        (folder / name).write_bytes(b"not this one")
    write_song(here / "raw" / "a.wav", 0.3)
    assert main(["-n", "a", "-s", "alto", "-shd", "-ks", "20"]) == 0
    assert results(here) == ["a_0key_alto_sovdiff_fcpe.flac"]


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spk_mix_map", "words"),
    [
        ({0: [[0, 1, 1, 0]]}, "no track of tenor"),
        ({0: [[0, 1, 1, 0]], 1: [[0, 0.5, 1, 1]]}, "track 1 ends at 0.5"),
        (None, "spk_mix_map"),
    ],
)
def test_a_map_that_breaks_a_rule_is_refused_before_a_song_is_begun(here, capsys, monkeypatch, spk_mix_map, words):
    monkeypatch.setattr("spkmix.spk_mix_map", spk_mix_map)
    write_song(here / "raw" / "a.wav", 0.5)
    sentence = refused(capsys, "-n", "a", "-usm")
    assert words in sentence and "a.wav" not in sentence


@pytest.mark.parametrize(
    ("text", "words"), [("a = 1\nspk_mix_map = {", "line 2"), ("\n\nspk_mix_map = {0: half}", "line 3: name 'half'")]
)
def test_a_map_that_is_no_python_is_refused_with_the_line(here, capsys, monkeypatch, text, words):
    (here / "spkmix.py").write_text(text, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "spkmix")
    monkeypatch.syspath_prepend(here)
    write_song(here / "raw" / "a.wav", 0.5)
    sentence = refused(capsys, "-n", "a", "-usm")
    assert "spkmix.py cannot be read" in sentence and words in sentence


def test_a_missing_song_names_the_nearest_in_raw(here, capsys):
    for name in ("choir.wav", "my song.wav", "solo.flac"):
        (here / "raw" / name).touch()
    assert "it holds my song.wav" in refused(capsys, "-n", "my sonk.wav", "-s", "alto")


def test_a_missing_song_with_no_raw_folder_says_so(here, capsys):
    (here / "raw").rmdir()
    assert "'song'" in refused(capsys, "-n", "song", "-s", "alto")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["-s", "atlo"], "'atlo'.*alto, tenor"),
        ([], "several speakers.*alto, tenor"),
        (["-s", "alto", "-f0p", "harvst"], "unknown F0 predictor 'harvst'.*harvest"),
        (["-s", "alto", "-wf", "docx"], "'docx' is not a format"),
        (["-s", "alto", "-wf", "../wav"], "not a format"),
        (["-s", "alto", "-t", "1", "2"], "-t gives 2 shifts for 1 songs"),
        (["-s", "alto", "-cl", "1", "-lg", "2"], "-lg"),
        (["-s", "alto", "-lgr", "0"], "-lgr"),
        (["-s", "alto", "-shd"], "no model_\\*.pt in logs/44k/diffusion.*-dm"),
        (["-s", "alto", "-od"], "no model_\\*.pt in logs/44k/diffusion.*-dm"),
        (["-s", "alto", "-cr", "0.3"], "there is no file logs/44k/kmeans_10000.pt"),
        (["-s", "alto", "-eh"], "nsf_hifigan"),
        (["-s", "alto", "-d", "tpu9"], "the device 'tpu9'"),
        (["-s", "alto", "-m", "logs/44k/G_9.pth"], "there is no checkpoint"),
        (["-s", "alto", "-m", "elsewhere/nope.pth"], "there is no checkpoint elsewhere/nope.pth"),
        (["-s", "alto", "-f0p", "rmvpe"], "'rmvpe' needs the file"),
        (["-s", "alto", "-c", "nowhere.json"], "nowhere.json"),
        (["-s", "alto", "alto"], "two conversions would be written to"),
        (["-s", "alto", "-n", " "], "-n has an empty name"),
    ],
)
def test_wrong_input_is_one_sentence(here, capsys, argv, words):
    write_song(here / "raw" / "a.wav", 0.5)
    assert re.search(words, refused(capsys, "-n", "a", *argv))


@pytest.mark.parametrize(
    ("content", "words"), [(b"just text", "cannot be read as audio"), (b"", "cannot be read as audio")]
)
def test_a_file_that_is_no_sound_is_named(here, capsys, content, words):
    (here / "raw" / "a.wav").write_bytes(content)
    sentence = refused(capsys, "-n", "a.wav", "-s", "alto")
    assert words in sentence
    assert "a.wav" in sentence


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["-f0p", "harvst"], "'harvst'"),
        (["-wf", "docx"], "'docx'"),
        (["-t", "1", "2"], "-t gives 2"),
        (["-s", "alto", "alto"], "two conversions"),
    ],
)
def test_wrong_flags_are_refused_before_a_model_is_sought(here, capsys, argv, words):
    (here / "logs" / "44k" / "G_1.pth").unlink()
    write_song(here / "raw" / "a.wav", 0.5)
    assert words in refused(capsys, "-n", "a", *argv)


def test_one_bad_song_is_named_and_does_not_stop_the_others(here, capsys, caplog):
    (here / "raw" / "a.wav").write_text("no sound", encoding="utf-8")
    (here / "raw" / "b.wav").write_text("none here either", encoding="utf-8")
    write_song(here / "raw" / "c.wav", 0.5)
    assert main(["-n", "a", "c", "b", "-s", "alto"]) == 1
    assert results(here) == ["c_0key_alto_sovits_fcpe.flac"]
    assert [line.startswith("not converted: raw/") for line in caplog.messages].count(True) == 2
    (here / "results" / "c_0key_alto_sovits_fcpe.flac").unlink()
    sentence = refused(capsys, "-n", "a", "b", "-s", "alto")
    assert "a.wav" in sentence and "b.wav" in sentence


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "the memory is too small"),
        (RuntimeError("CUDA out of memory."), "the memory is too small"),
        (OSError(28, "No space left on device", "b"), "No space left"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    ],
)
def test_a_song_that_fails_in_any_way_is_named_and_the_rest_is_converted(here, monkeypatch, caplog, error, words):
    for name in "abc":
        write_song(here / "raw" / f"{name}.wav", 0.5)
    convert = Svc.convert

    def fail_at_b(svc, song, conversion, **options):
        if song.path.stem == "b":
            raise error
        return convert(svc, song, conversion, **options)

    monkeypatch.setattr(Svc, "convert", fail_at_b)
    assert main(["-n", "a", "b", "c", "-s", "alto"]) == 1
    assert results(here) == ["a_0key_alto_sovits_fcpe.flac", "c_0key_alto_sovits_fcpe.flac"]
    (sentence,) = [line for line in caplog.messages if line.startswith("not converted: ")]
    assert "b.wav" in sentence and words in sentence
    assert ("Traceback" in caplog.text) == isinstance(error, ZeroDivisionError)


def test_ctrl_c_stops_the_whole_batch(here, monkeypatch):
    for name in "ab":
        write_song(here / "raw" / f"{name}.wav", 0.5)

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Svc, "convert", interrupt)
    assert main(["-n", "a", "b", "-s", "alto"]) == 130


def test_a_missing_song_and_names_that_are_too_long_do_not_stop_the_others(here, monkeypatch, caplog):
    long = "n" * 240  # its result's name is too long for a file system
    for name in ("a", long):
        write_song(here / "raw" / f"{name}.wav", 0.5)
    convert, begun = Svc.convert, []


    def note(svc, song, *arguments, **options):
        begun.append(song.path.stem)
        return convert(svc, song, *arguments, **options)

    monkeypatch.setattr(Svc, "convert", note)
    assert main(["-n", "absent", "n" * 300, long, "a", "-t", "1", "2", "3", "4", "-s", "alto"]) == 1
    assert results(here) == ["a_4key_alto_sovits_fcpe.flac"]
    assert begun == ["a"]  # what cannot be written is not converted
    sentences = [line for line in caplog.messages if line.startswith("not converted: ")]
    assert len(sentences) == 3 and "Traceback" not in caplog.text
    assert f"raw/{long}.wav: its result would have a name 12 bytes too long; rename the song" in sentences[2]


def test_a_result_may_have_the_longest_name_there_is_and_one_more_is_refused_before_a_model_is_sought(here, capsys):
    ending = "_0key_alto_sovits_fcpe.flac"
    for extra in (0, 1):
        write_song(here / "raw" / "a.wav", 0.5).rename(here / "raw" / ("n" * (255 - len(ending) + extra)))
    assert main(["-n", "n" * (255 - len(ending)), "-s", "alto"]) == 0
    assert results(here) == ["n" * (255 - len(ending)) + ending]
    shutil.rmtree(here / "results")
    (here / "logs" / "44k" / "G_1.pth").unlink()
    assert "a name 1 byte too long" in refused(capsys, "-n", "n" * (256 - len(ending)), "-s", "alto")


ODD_SPEAKERS = ("a/b", "/a", "../../a", "a/", "s" * 250, "\ud800")


@pytest.mark.parametrize("speaker", ODD_SPEAKERS)
def test_a_speaker_whose_name_no_file_can_have_is_chosen_by_number_and_writes_nowhere_else(here, capsys, speaker):
    path = here / "logs" / "44k" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["spk"] = {"tenor": 0, speaker: 1}
    path.write_text(json.dumps(config), encoding="utf-8")
    write_song(here / "raw" / "a.wav", 0.5)
    before = sorted((*here.rglob("*"), *here.parent.iterdir()))
    sentence = refused(capsys, "-n", "a", "-s", speaker)
    assert "raw/a.wav: its result would have" in sentence and "give the speaker's number with -s" in sentence
    assert main(["-n", "a", "-s", "tenor", speaker]) == 1  # the other speaker is converted
    shutil.rmtree(here / "results")
    assert sorted((*here.rglob("*"), *here.parent.iterdir())) == before
    assert main(["-n", "a", "-s", "tenor"]) == 0
    assert main(["-n", "a", "-s", "1"]) == 0
    assert results(here) == ["a_0key_1_sovits_fcpe.flac", "a_0key_tenor_sovits_fcpe.flac"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
@pytest.mark.parametrize(
    "speaker", ["..", "", "-a", "a\\b", "a\nb", "a\u2028b", "a|b", " a. ", "%s{}*?", "\udcff", "~"]
)
def test_a_speaker_of_any_other_name_can_be_chosen_by_it(here, capsys, speaker):
    path = here / "logs" / "44k" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["spk"] = {speaker: 1}
    path.write_text(json.dumps(config), encoding="utf-8")
    write_song(here / "raw" / "a.wav", 0.5)
    assert main(["-n", "a", f"-s={speaker}"]) == 0
    assert results(here) == [f"a_0key_{speaker}_sovits_fcpe.flac"]
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
@pytest.mark.parametrize(
    "name", ["a\nb.wav", "a\u2028.wav", "a|b", "a\\b.wav", ".a.wav", "-a.wav", " a. ", "a\x1b.wav", "[*]"]
)
def test_a_song_of_any_name_is_converted_and_its_result_printed_in_one_line(here, capsys, name):
    write_song(here / "raw" / "a.wav", 0.5).rename(here / "raw" / name)
    assert main([f"-n={name}", "-s", "alto"]) == 0
    assert results(here) == [f"{name}_0key_alto_sovits_fcpe.flac"]
    assert capsys.readouterr().out == f"results/{printable(name)}_0key_alto_sovits_fcpe.flac\n"


def test_song_and_speaker_are_found_in_the_other_normal_form_of_their_names(here):
    path = here / "logs" / "44k" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["spk"] = {"zoe\u0308": 0, "tenor": 1}
    path.write_text(json.dumps(config), encoding="utf-8")
    write_song(here / "raw" / "cafe\u0301.wav", 0.5)
    for name in ("caf\u00e9", "caf\u00e9.wav", "raw/caf\u00e9.wav"):
        assert main(["-n", name, "-s", "zo\u00eb", "-o", f"results/{len(name)}"]) == 0
    assert main(["-n", "caf\u00e8", "-s", "zo\u00eb"]) == main(["-n", "cafe\u0301", "-s", "zo\u00e9"]) == 2


def test_results_that_differ_in_case_only_are_refused_where_they_are_one_file(here, monkeypatch, capsys):
    for name in ("x/A.wav", "y/a.wav"):
        (here / name).parent.mkdir()
        write_song(here / name, 0.5)
    monkeypatch.setattr(jobs, "FOLDS_NAMES", True)
    assert "two conversions would be written" in refused(capsys, "-n", "x/A.wav", "y/a.wav", "-s", "alto")
    monkeypatch.setattr(jobs, "FOLDS_NAMES", False)
    assert main(["-n", "x/A.wav", "-s", "alto"]) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no names that are not Unicode")
def test_a_song_whose_name_is_not_unicode_is_converted(here, capsys):
    name = os.fsdecode(b"\xff.wav")
    write_song(here / "raw" / "a.wav", 0.5).rename(here / "raw" / name)
    assert main(["-n", name, "-s", "alto"]) == 0
    assert results(here) == [f"{name}_0key_alto_sovits_fcpe.flac"]


def test_a_song_that_is_cut_off_is_converted_named_and_counted(here, caplog):
    caplog.set_level("INFO", "svc")
    data = write_song(here / "raw" / "a.wav", 1.0).read_bytes()
    (here / "raw" / "a.wav").write_bytes(data[: len(data) // 2])
    assert main(["-n", "a", "-s", "alto"]) == 1
    assert results(here) == ["a_0key_alto_sovits_fcpe.flac"]
    assert soundfile.info(here / "results" / results(here)[0]).duration == pytest.approx(0.5, abs=0.01)
    assert "raw/a.wav is cut off: its header gives 1.0 s, 0.5 s are there" in caplog.text
    assert caplog.messages[-1].startswith("incomplete") and "a_0key_alto" in caplog.messages[-1]


@pytest.mark.parametrize("case", ["zeros", "quiet", "offset"])
def test_a_song_whose_result_would_be_silence_is_an_error(here, capsys, case):
    tone = np.sin(np.arange(22050) / 20)
    soundfile.write(
        here / "raw" / "a.wav", {"zeros": 0 * tone, "quiet": 3e-3 * tone, "offset": 0 * tone + 0.2}[case], 22050
    )
    sentence = refused(capsys, "-n", "a", "-s", "alto")
    assert "a.wav" in sentence and ("holds only silence" in sentence) == (case != "quiet")


@pytest.mark.parametrize("case", ["stereo that cancels", "5.1 with the voice in the centre", "above full scale"])
def test_channels_and_peaks_do_not_cost_the_song(here, caplog, case):
    caplog.set_level("INFO", "svc")
    tone = 0.04 * np.sin(np.arange(22050) / 20)
    audio = {
        "stereo that cancels": np.stack((tone, -tone), 1),
        "5.1 with the voice in the centre": np.stack([tone * (channel == 2) for channel in range(6)], 1),
        "above full scale": 100 * tone,
    }[case]
    soundfile.write(here / "raw" / "a.wav", audio, 22050, subtype="FLOAT")
    assert main(["-n", "a.wav", "-s", "alto", "-wf", "wav"]) == 0
    assert np.abs(soundfile.read(here / "results" / results(here)[0])[0]).max() > 0
    assert ("whole is lowered" in caplog.text) == (case == "above full scale")
    assert ("is used, since" in caplog.text) != (case == "above full scale")


def test_without_a_config_the_error_names_its_path(here, capsys):
    (here / "logs" / "44k" / "config.json").unlink()
    write_song(here / "raw" / "a.wav", 0.5)
    sentence = refused(capsys, "-n", "a", "-s", "alto")
    assert "config.json" in sentence and "-c" in sentence and "preprocess" not in sentence


def test_nan_in_the_song_writes_nothing(here, capsys):
    audio = np.zeros(20000, np.float32)
    audio[-1] = np.nan
    soundfile.write(here / "raw" / "a.wav", audio, 44100, subtype="FLOAT")
    assert "NaN" in refused(capsys, "-n", "a", "-s", "alto")


def test_without_a_model_the_error_names_train_py(here, capsys):
    (here / "logs" / "44k" / "G_1.pth").unlink()
    (here / "raw" / "a.wav").touch()
    assert "train.py" in refused(capsys, "-n", "a", "-s", "alto")


def test_a_config_of_another_model_names_keys_and_shapes(here, capsys):
    config = here / "logs" / "44k" / "config.json"
    values = json.loads(config.read_text(encoding="utf-8"))
    values["model"]["hidden_channels"] = 16
    config.write_text(json.dumps(values), encoding="utf-8")
    write_song(here / "raw" / "a.wav", 0.5)
    sentence = refused(capsys, "-n", "a", "-s", "alto")
    assert "pre.weight is [8, 72, 5] in the file and [16, 72, 5] by the config" in sentence


def test_an_output_folder_that_cannot_be_written_is_named(here, capsys):
    (here / "results").write_text("a file where a folder is needed", encoding="utf-8")
    write_song(here / "raw" / "a.wav", 0.5)
    assert main(["-n", "a", "-s", "alto"]) == 2
    assert "results" in capsys.readouterr().err.splitlines()[-1]


def test_a_song_that_breaks_off_leaves_the_former_result(here, capsys):
    write_song(here / "raw" / "a.flac", 20, gaps=(8,))
    (here / "results").mkdir()
    former = here / "results" / "a.flac_0key_alto_sovits_fcpe.flac"
    former.write_text("of yesterday", encoding="utf-8")
    data = (here / "raw" / "a.flac").read_bytes()
    (here / "raw" / "a.flac").write_bytes(data[: len(data) // 2])
    assert main(["-n", "a.flac", "-s", "alto"]) == 2
    assert former.read_text(encoding="utf-8") == "of yesterday"
    assert results(here) == [former.name]


# -- editing, planning and sharing ------------------------------------------------------------------------------------


def test_f0_is_written_edited_and_read_again(here, capsys):
    write_song(here / "raw" / "a.wav", 1.0)
    assert main(["-n", "a", "-s", "alto", "-f0p", "pm", "-wf", "wav", "--f0_out", "a.csv"]) == 0
    first = soundfile.read(here / "results" / "a_0key_alto_sovits_pm.wav")[0]
    assert main(["-n", "a", "-s", "alto", "-f0p", "pm", "-wf", "wav", "--f0_in", "a.csv", "-o", "again"]) == 0
    again = soundfile.read(here / "again" / "a_0key_alto_sovits_pm.wav")[0]
    assert np.linalg.norm(again - first) < 0.01 * np.linalg.norm(first)
    (here / "a.csv").write_text("time,f0\n0,high\n")
    write_song(here / "raw" / "b.wav", 1.0)
    shutil.rmtree(here / "results")
    assert "a.csv (--f0_in), line 2" in refused(capsys, "-n", "a", "-s", "alto", "--f0_in", "a.csv")
    assert "of one song" in refused(capsys, "-n", "a", "b", "-s", "alto", "--f0_out", "x.csv")


def test_a_dry_run_tells_pieces_and_devices_and_writes_nothing(here, capsys):
    write_song(here / "raw" / "a.wav", 8, gaps=(6,))
    assert main(["-n", "a", "-s", "alto", "-t", "2.5", "-cl", "3", "--dry_run", "-d", "cpu"]) == 0
    where, plan = capsys.readouterr().out.splitlines()
    assert "on cpu" in where and "mfcc" in where
    assert "a_2.5key_alto_sovits_fcpe.flac" in plan and "8.0 s of song, +2.5 semitones" in plan
    assert not (here / "results").exists()


def test_an_automatic_key_is_part_of_the_name(here, capsys):
    config = tiny_config()
    config.model.ssl_dim, config.f0 = 72, {"alto": [300.0, 450.0, 600.0]}
    write_model(here / "logs" / "44k", config)
    write_song(here / "raw" / "a.wav", 1.0)
    assert main(["-n", "a", "-s", "alto", "-t", "auto", "-f0p", "pm"]) == 0
    assert results(here) == ["a_autokey_alto_sovits_pm.flac"]
    shutil.rmtree(here / "results")
    assert "-a" in refused(capsys, "-n", "a", "-s", "alto", "-t", "auto", "-a")
    assert "config.json has no F0 range of tenor" in refused(capsys, "-n", "a", "-s", "tenor", "-t", "auto")


def test_several_processes_share_the_songs(here, monkeypatch):
    for name in "abc":
        write_song(here / "raw" / f"{name}.wav", 0.5)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, own in (("0", ["a", "c"]), ("1", ["b"])):
        monkeypatch.setenv("RANK", rank)
        assert main(["-n", "a", "b", "c", "-s", "alto", "tenor", "-f0p", "pm", "-d", "cpu", "-o", rank]) == 0
        assert sorted({path.name[0] for path in (here / rank).iterdir()}) == own
        assert len(list((here / rank).iterdir())) == 2 * len(own)
