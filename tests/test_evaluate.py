"""evaluate.py, without any judge package: files, folders, models, comparisons, the sweep, and wrong input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from demonstration.singer import DARK, Note, sing
from evaluate import build_parser, load_trial, main, read_entry
from evaluation import picture
from evaluation.assessment import Assessment, Assessor, Column
from evaluation.case import Excerpt, Sound, find_texts, name_clips, pair, short_names
from evaluation.judges import JudgeRow
from evaluation.report import differences
from inference.jobs import Job
from modules.audio.files import write_audio
from modules.console import UserError
from tests.test_svc import write_model

OUT = Path("results/evaluation")


def write_singing(path: Path, seconds: float = 1.2, pitch: float = 55, seed: int = 0) -> Path:
    notes = [Note(pitch, seconds / 2, "la"), Note(pitch + 3, seconds / 2, "so")]
    song = sing(DARK, notes, seed=seed)
    write_audio(path, song.audio, song.sampling_rate)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch, request) -> Path:
    """A working folder with two songs, where no judge is installed; pictures are drawn for tests that name them."""
    if "picture" not in request.node.name:
        monkeypatch.setattr(picture, "_draw", lambda *_: None)
    monkeypatch.setattr(JudgeRow, "missing", lambda row: list(row.packages))
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("ab"):
        write_singing(tmp_path / "raw" / f"{name}.wav", seed=seed)
    return tmp_path


@pytest.fixture
def model(here) -> Path:
    (here / "logs" / "44k").mkdir(parents=True)
    write_model(here / "logs" / "44k")
    return next((here / "logs" / "44k").glob("G_*.pth"))


def figures(column: str = "converted", name: str | None = None) -> dict[str, float]:
    content = json.loads((OUT / "evaluation.json").read_text(encoding="utf-8"))
    return (content[name] if name else content)["columns"][column]["mean"]


def refused(capsys, *argv: str) -> str:
    assert main(argv) == 2
    return capsys.readouterr().err


def test_a_song_agrees_with_itself_missing_judges_are_named_and_the_picture_is_drawn(here, capsys):
    assert main(["--converted", "raw/a.wav", "--source", "raw/a.wav", "--reference", "raw/a.wav"]) == 0
    found = figures()
    exact = {"f0_cents": 0, "vuv_f1": 1, "lag": 0, "length": 0, "mcd": 0, "mcd_dtw": 0, "stft": 0, "level": 0}
    exact |= {"f0_correlation": 1, "envelope_correlation": 1, "periodicity_error": 0, "clipped": 0, "clicks": 0}
    assert {name: found[name] for name in exact} == pytest.approx(exact, abs=1e-6)
    text = capsys.readouterr().out
    for what in ("speaker similarity", "DNSMOS", "character error rate", "phone error rate"):
        assert f"{what} is left out" in text
    assert text.count("pip install -r requirements-evaluate.txt") == 4
    assert (OUT / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    assert not {"similarity", "cer", "dnsmos"} & set(found)


def test_a_shifted_song_has_its_shift_and_the_floor_is_the_source_at_that_pitch(here):
    write_singing(here / "high" / "a.wav", pitch=59)
    assert main(["--converted", "high/a.wav", "--source", "raw/a.wav", "-t", "4"]) == 0
    assert figures()["f0_median_cents"] < 30 and figures("shifted")["f0_median_cents"] < 30
    assert main(["--converted", "high/a.wav", "--source", "raw/a.wav"]) == 0
    assert figures()["f0_median_cents"] == pytest.approx(400, abs=30)


def test_a_folder_of_results_is_paired_with_the_songs_by_name(here, capsys):
    for name in "ab":
        (here / "results").mkdir(exist_ok=True)
        (here / "raw" / f"{name}.wav").rename(here / "raw" / f"{name}.wav.tmp")
        audio, rate = soundfile.read(here / "raw" / f"{name}.wav.tmp")
        soundfile.write(here / "raw" / f"{name}.wav", audio, rate)
        soundfile.write(here / "results" / f"{name}.wav_0key_alto_sovits_pm.flac", audio * 0.5, rate)
    assert main(["--converted", "results", "--source", "raw"]) == 0
    assert figures()["f0_cents"] == pytest.approx(0, abs=1)
    (here / "raw" / "b.wav").unlink()
    write_singing(here / "raw" / "c.wav")
    unpaired = Path("results", "b.wav_0key_alto_sovits_pm.flac")
    assert f"--source has no file for {unpaired}" in refused(capsys, "--converted", "results", "--source", "raw")


def test_a_model_converts_songs_once_and_is_held_against_the_f0_that_it_was_given(here, model, monkeypatch):
    command = ["-m", str(model), "-n", "a", "b", "-s", "alto", "-f0p", "dio", "--target", "raw"]
    assert main(command) == 0
    assert {"given_f0_cents", "vuv_f1", "clicks"} <= set(figures())
    assert len(list((OUT / "converted").glob("*.wav"))) == 2
    before = figures()
    monkeypatch.setattr(Job, "run", lambda *_: pytest.fail("converted again"))
    assert main(command) == 0
    assert figures() == before
    with pytest.raises(pytest.fail.Exception):
        main([*command, "-ns", "0.1"])  # another setting is another conversion


@pytest.mark.parametrize("damage", ["delete the sound", "empty the notes", "cut the notes"])
def test_a_kept_conversion_that_is_not_complete_is_made_again(here, model, damage):
    command = ["-m", str(model), "-n", "a", "-s", "alto", "-f0p", "dio", "--target", "raw"]
    assert main(command) == 0
    before = figures()
    (notes,) = (OUT / "converted").glob("*.json")
    if damage == "delete the sound":
        notes.with_suffix(".wav").unlink()
    else:
        notes.write_text("{}" if damage == "empty the notes" else '{"seconds"', encoding="utf-8")
    assert main(command) == 0 and figures() == before
    assert notes.with_suffix(".wav").is_file() and "shift" in notes.read_text(encoding="utf-8")


def test_a_model_converts_the_validation_clips_and_the_targets_own_are_its_ceiling(here, model):
    write_clips(val=["alto/a.wav", "tenor/b.wav"], train=["alto/c.wav", "tenor/d.wav"])
    assert main(["-m", str(model), "-s", "alto", "-f0p", "dio", "-t", "2"]) == 0
    content = json.loads((OUT / "evaluation.json").read_text(encoding="utf-8"))
    assert content["clips"] == ["b"] and len(content["columns"]["target"]["clips"]) == 1
    assert "mcd" in figures("self") and "mcd" not in figures()
    shifts = {path.name[0]: json.loads(path.read_text(encoding="utf-8"))["shift"]
              for path in (OUT / "converted").glob("*.json")}  # fmt: skip
    assert shifts == {"a": 0, "b": 2}
    assert main(["-m", str(model), "-s", "alto", "-f0p", "dio", "-n", "dataset/44k/alto/a.wav"]) == 0
    assert "mcd" in figures()  # a clip of the target is what its conversion should be


def write_clips(**lists: list[str]) -> None:
    """Write clips of a dataset and the file lists that name them."""
    Path("filelists").mkdir(exist_ok=True)
    for seed, (name, files) in enumerate(lists.items()):
        paths = [write_singing(Path("dataset/44k", file), 0.8, seed=seed) for file in files]
        Path("filelists", f"{name}.txt").write_text("\n".join(map(str, paths)), encoding="utf-8")


def test_clips_of_several_speakers_with_the_same_name_all_count(here, model):
    write_clips(val=["tenor/1.wav", "bass/1.wav"], train=["alto/c.wav"])
    Path("filelists/val.txt").write_text("dataset/44k/tenor/1.wav\ndataset/44k/bass/1.wav", encoding="utf-8")
    write_singing(Path("dataset/44k/bass/1.wav"), 0.8, seed=5)
    assert main(["--compare", str(model), str(model), "-s", "alto", "-f0p", "dio"]) == 0
    content = json.loads((OUT / "evaluation.json").read_text(encoding="utf-8"))
    assert content[str(model)]["clips"] == ["tenor/1", "bass/1"]
    assessments = [Assessment(["1", "1"], {"converted": Column([{"lag": 0.0}, {"lag": 0.1}])}) for _ in range(2)]
    with pytest.raises(ValueError, match="the same name"):
        differences(*assessments)


def test_two_results_of_a_song_and_two_songs_for_a_result_are_refused(here, capsys):
    for name in ("results/a_0key.wav", "results/a_12key.wav", "more/x/a.wav", "more/y/a.wav"):
        write_singing(here / name)
    assert "two results belong to raw/a.wav" in refused(capsys, "--converted", "results", "--source", "raw")
    text = refused(capsys, "--converted", "results/a_0key.wav", "--source", "more")
    assert "more/x/a.wav and more/y/a.wav" in text
    assert name_clips([Path("more/x/a.wav"), Path("more/y/a.wav").absolute()]) == [str(Path("x/a")), str(Path("y/a"))]
    with pytest.raises(UserError, match=r"raw/a\.wav and raw/a\.flac have one name"):
        name_clips([Path("raw/a.wav"), Path("raw/a.flac")])


def test_the_targets_own_clip_is_no_reference_at_another_pitch(here, model):
    write_clips(val=["alto/a.wav"], train=["alto/c.wav"])
    command = ["-m", str(model), "-s", "alto", "-f0p", "dio"]
    assert main(command) == 0 and "mcd" in figures()
    assert main([*command, "-t", "12"]) == 0 and "mcd" not in figures()


def test_a_table_of_f0_is_used_for_its_song_alone(here, model, capsys):
    write_clips(val=["alto/a.wav"], train=["alto/c.wav"])
    Path("f0.csv").write_text("time,f0\n0,150\n1,300\n", encoding="utf-8")
    assert "is the F0 of one song" in refused(capsys, "--converted", "raw", "--f0", "f0.csv")
    command = ["-m", str(model), "-s", "alto", "-f0p", "dio", "--f0_in", "f0.csv", "-n"]
    assert "is the F0 of one song" in refused(capsys, *command, "a", "b")
    assert main([*command, "b"]) == 0
    highest = {path.name[0]: max(float(row.split(",")[1]) for row in path.read_text().splitlines()[1:])
               for path in (OUT / "converted").glob("*.csv")}  # fmt: skip
    assert highest["b"] > 290 and highest["a"] < 270  # the target's own clip has its own F0
    Path("f0.csv").unlink()
    assert "f0.csv (--f0) cannot be read" in refused(capsys, "--converted", "raw/a.wav", "--f0", "f0.csv")


def test_a_model_compared_with_itself_does_not_differ(here, model, capsys):
    assert main(["--compare", str(model), str(model), "-n", "a", "-s", "alto", "-f0p", "dio", "--target", "raw"]) == 0
    assert "no figure differs beyond chance" in capsys.readouterr().out
    assert figures(name=str(model)) == figures(name=f"{model} (2)")


def test_folders_are_compared_over_the_songs_that_both_have_in_a_table_and_a_picture(here, capsys):
    for name in ("one/a.wav_0key_alto_sovits_pm.wav", "two/a.wav_0key_alto_sovits_fcpe.wav", "two/b.wav"):
        write_singing(here / name, seed=3)
    assert main(["--compare", "one", "two", "--source", "raw"]) == 0
    assert "two against one" in capsys.readouterr().out
    assert (OUT / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    write_singing(here / "three" / "b.wav")
    assert "has no clip in common" in refused(capsys, "--compare", "one", "three", "--source", "raw")


def test_a_sweep_lists_the_settings_that_the_models_files_allow(here, model, capsys):
    assert main(["-m", str(model), "-n", "a", "-s", "alto", "-f0p", "dio", "--target", "raw", "--sweep"]) == 0
    table = capsys.readouterr().out
    assert "as given" in table and "--precision fp32" in table and "s per s" in table
    assert "-shd" not in table and "-cr" not in table
    content = json.loads((OUT / "evaluation.json").read_text(encoding="utf-8"))
    assert content["as given"]["seconds_per_second"] > 0


def test_wrong_input_is_refused_with_a_sentence(here, model, capsys):
    assert "give one of --converted, -m, --compare" in refused(capsys)
    assert "give one of" in refused(capsys, "--converted", "raw", "-m", str(model))
    assert "--sweep" in refused(capsys, "--converted", "raw", "--sweep")
    assert "-cr: only a conversion by a model" in refused(capsys, "--converted", "raw", "-cr", "0.5")
    assert "is no sound file and no folder" in refused(capsys, "--converted", "nowhere")
    assert "belongs to --converted" in refused(capsys, "-m", str(model), "--f0", "a.csv")
    clash = refused(capsys, "-m", str(model), "-n", "a", "-s", "alto", "-f0p", "crepe", "--tracker", "crepe")
    assert "it cannot judge it" in clash
    assert "validation clips are not there" in refused(capsys, "-m", str(model), "-s", "alto", "-f0p", "dio")
    assert not OUT.exists()


def test_every_entry_of_a_comparison_is_checked_before_the_first_is_judged(here, model, capsys, monkeypatch):
    monkeypatch.setattr("inference.trial.Trial.convert", lambda *_: pytest.fail("converted"))
    monkeypatch.setattr("evaluation.assessment.Assessor.assess", lambda *_, **__: pytest.fail("judged"))
    common = ["-n", "a", "-s", "alto", "-f0p", "dio"]
    for flag in ("-s tenor", "-n b", "--tracker dio", "-o here", "--target raw", "-usm", "--dry_run", "-t 3"):
        text = refused(capsys, "--compare", str(model), f"{model} {flag}", *common)
        assert f"{flag.split()[0]} is no setting of one conversion" in text
    assert "there is no checkpoint nowhere.pth" in refused(capsys, "--compare", str(model), "nowhere.pth", *common)
    assert "invalid float value" in refused(capsys, "--compare", str(model), f"{model} -cr much", *common)
    assert "needs two entries" in refused(capsys, "--compare", str(model), *common)
    assert "-cr: only a conversion by a model" in refused(capsys, "--compare", "raw", "raw", "-cr", "0.5")
    assert "a folder has no settings" in refused(capsys, "--compare", "raw", "raw -cr 0.5")
    (here / "empty").mkdir()
    assert "--converted: empty is no sound file" in refused(capsys, "--converted", "empty")
    assert "--compare: empty is no sound file" in refused(capsys, "--compare", "empty", "empty")


def test_an_entry_may_have_spaces_and_takes_the_flags_of_all(here, model):
    spaced = here / "a model.pth"
    spaced.write_bytes(model.read_bytes())
    args = build_parser().parse_args(
        ["--compare", "x", "-f0p", "dio", "-ns", "0.2", "-c", str(model.parent / "config.json")]
    )
    flags = read_entry(args, str(spaced))
    assert (flags.model_path, flags.f0_predictor, flags.noice_scale) == (str(spaced), "dio", 0.2)
    flags = read_entry(args, f"'{spaced}' -ns 0.3")
    assert (flags.model_path, flags.f0_predictor, flags.noice_scale) == (str(spaced), "dio", 0.3)
    assert args.noice_scale == 0.2 and read_entry(args, "raw") is None


def test_the_files_of_a_conversion_count_in_its_fingerprint(here, model, monkeypatch):
    args = build_parser().parse_args(["-m", str(model), "-s", "alto", "-f0p", "dio"])
    keys = [load_trial(args).fingerprint for _ in range(2)]
    assert keys[0] == keys[1]
    monkeypatch.setattr("evaluate.VERSION", "another")
    keys.append(load_trial(args).fingerprint)
    weights = here / "weights.pt"
    monkeypatch.setattr("inference.feature_extractor.FeatureExtractor.files", lambda *_: [weights])
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        trial = load_trial(args)
        keys.append(trial.fingerprint)
    assert len(set(keys)) == 4 and set(trial.svc.files(trial.conversion)) == {
        model, model.with_name("config.json"), weights
    }  # fmt: skip


def test_texts_come_from_a_folder_a_file_or_the_flag(tmp_path):
    (tmp_path / "a.txt").write_text("words of a\n", encoding="utf-8")
    sounds = [tmp_path / "a.wav"]
    assert find_texts(str(tmp_path), sounds) == find_texts(str(tmp_path / "a.txt"), sounds) == ["words of a"]
    assert find_texts("these words", [*sounds, *sounds]) == ["these words"] * 2
    with pytest.raises(UserError, match="no file for"):
        find_texts(str(tmp_path), [*sounds, tmp_path / "b.wav"])
    with pytest.raises(UserError, match="cannot be read"):
        find_texts(str(tmp_path / "c.txt"), sounds)


def test_a_text_without_words_is_refused(here, capsys):
    Path("a.txt").write_text("\n ...\n", encoding="utf-8")
    assert "a.txt holds no words" in refused(capsys, "--converted", "raw/a.wav", "--text", "a.txt")
    assert "a.txt holds no words" in refused(capsys, "--converted", "raw/a.wav", "--text", ".")
    for text in ("", "..."):
        assert "--text is given without words" in refused(capsys, "--converted", "raw/a.wav", "--text", text)


def test_a_text_without_phones_and_without_a_source_has_no_phone_error_rate(monkeypatch):
    pytest.importorskip("jiwer", reason="jiwer is not installed: pip install -r requirements-evaluate.txt")
    monkeypatch.setattr("evaluation.phones.phones_of_text", lambda text: "")

    class Recognisers:
        def ask(self, key, audio, rate):
            return "words" if key in ("words", "phones") else None

    assessor = Assessor(Recognisers(), None)
    excerpt = Excerpt("a", Sound(np.zeros(441, np.float32)), text="words")
    assert assessor._error_rates(excerpt.converted, excerpt) == {"cer": 0}


def test_a_song_of_another_length_is_refused_with_both_names(here, capsys):
    write_singing(here / "long.wav", 2.4)
    write_singing(here / "longest.wav", 24.0)
    for converted in ("long.wav", "longest.wav"):
        for role in ("--source", "--reference"):
            text = refused(capsys, "--converted", converted, role, "raw/a.wav")
            assert converted in text and f"{role} raw/a.wav has 1.2 s" in text


def test_the_longest_name_wins_when_two_songs_begin_alike():
    songs = [Path("song.wav"), Path("song_2.wav")]
    assert pair([Path("song_2.wav_0key_alto_sovits_pm.flac")], songs, "source") == [songs[1]]
    assert pair([Path("song.flac")], songs, "source") == [songs[0]]


def test_names_in_a_comparison_leave_out_what_is_common():
    assert short_names(["logs/44k/G_1.pth", "logs/44k/G_2.pth -cr 0.5"]) == ["G_1.pth", "G_2.pth -cr 0.5"]
    assert short_names(["one", "two"]) == ["one", "two"]
