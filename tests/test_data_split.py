"""The split into training and validation, and the configuration that goes with it."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from modules.console import UserError
from preparation.configs import fitted_configs
from preparation.data_split import split, take_inventory
from vencoder import ENCODERS

ROOT = Path(__file__).parent.parent


def make_clip(path, seconds=1.0, rate=44100, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(round(seconds * rate)), rate, **how)


@pytest.fixture
def data_set(tmp_path):
    """Two speakers of five clips each, with names that include spaces and non-ASCII letters."""
    folder = tmp_path / "dataset" / "44k"
    for speaker in ("名 前", "alto"):
        for number in range(5):
            make_clip(folder / speaker / f"空 格 ({number}).wav")
    return folder


def test_every_clip_is_in_exactly_one_list_and_two_of_each_speaker_validate(data_set):
    train, validation = split(take_inventory(data_set, 44100), "./dataset/44k", seed=1)
    assert sorted(train + validation) == [
        f"./dataset/44k/{speaker}/空 格 ({number}).wav" for speaker in ("alto", "名 前") for number in range(5)
    ]
    assert [sum(f"/{speaker}/" in line for line in validation) for speaker in ("alto", "名 前")] == [2, 2]


def test_the_seed_decides_the_split(data_set):
    inventory = take_inventory(data_set, 44100)
    splits = [split(inventory, "d", seed) for seed in range(20)]
    assert splits == [split(inventory, "d", seed) for seed in range(20)]
    assert len({tuple(sorted(validation)) for _, validation in splits}) > 5


def test_a_new_speaker_changes_no_other_speakers_split(data_set):
    before = set(split(take_inventory(data_set, 44100), "d", seed=1)[1])
    for number in range(3):
        make_clip(data_set / "aaa" / f"{number}.wav")
    assert before < set(split(take_inventory(data_set, 44100), "d", seed=1)[1])


def test_speakers_with_equal_clip_names_are_split_independently(tmp_path):
    for speaker in "abcdef":
        for number in range(8):
            make_clip(tmp_path / speaker / f"{number}.wav")
    _, validation = split(take_inventory(tmp_path, 44100), "d", seed=1)
    names = {speaker: {n for n in range(8) if f"d/{speaker}/{n}.wav" in validation} for speaker in "abcdef"}
    assert all(len(numbers) == 2 for numbers in names.values())
    assert len({tuple(sorted(numbers)) for numbers in names.values()}) > 2


def test_speakers_are_numbered_in_alphabetical_order(data_set):
    assert take_inventory(data_set, 44100).speakers == {"alto": 0, "名 前": 1}


def test_hidden_foreign_and_stray_files_are_passed_over(data_set):
    before = take_inventory(data_set, 44100)
    for name in ("alto/.x.wav", "alto/x.wav.soft.pt", "alto/x.spec.pt", "stray.txt", ".x.flac"):
        (data_set / name).write_text("x", encoding="utf-8")
    make_clip(data_set / ".ipynb_checkpoints" / "x.wav")
    make_clip(data_set / "alto" / "x.WAV")
    assert take_inventory(data_set, 44100) == dataclasses.replace(before, misplaced=[data_set / "alto" / "x.WAV"])


def test_sound_that_is_no_clip_by_its_name_or_place_is_counted_and_named_with_the_cure(data_set, tmp_path):
    for name in ("alto/a.WAV", "alto/b.flac", "c.wav", *(f"alto/x{number}.mp3" for number in range(9))):
        (data_set / name).write_text("x", encoding="utf-8")
    done = run_script(tmp_path, "--speech_encoder", "mfcc")
    assert done.returncode == 0
    names = ", ".join(f"dataset/44k/{name}" for name in ("alto/a.WAV", "alto/b.flac", "alto/x0.mp3", "alto/x1.mp3"))
    (line,) = [line for line in done.stderr.splitlines() if "sound file" in line]
    start = f"passed over: 12 sound files ({names}, dataset/44k/alto/x2.mp3, ...): not a .wav in a speaker"
    assert line.startswith(start)
    assert "dataset_raw/<speaker>/" in line and "resample.py" in line


def test_the_error_for_a_speaker_without_wav_clips_gives_the_reason(data_set):
    make_clip(data_set / "bass" / "a.flac")
    with pytest.raises(UserError, match=r"bass 0 \(.*bass/a.flac is no .wav\)"):
        take_inventory(data_set, 44100)


def test_clips_below_three_tenths_of_a_second_are_passed_over_and_exactly_that_is_kept(data_set):
    make_clip(data_set / "alto" / "short.wav", 0.2999)
    make_clip(data_set / "alto" / "kept.wav", 0.3)
    inventory = take_inventory(data_set, 44100)
    assert [clip.name for clip in inventory.too_short] == ["short.wav"]
    assert "kept.wav" in [clip.name for clip in inventory.clips["alto"]]
    assert inventory.seconds == pytest.approx(10.3)


def test_any_wav_that_can_be_read_and_has_the_rate_counts(data_set):
    make_clip(data_set / "alto" / "float.wav", subtype="FLOAT")
    make_clip(data_set / "alto" / "deep.wav", subtype="PCM_24")
    make_clip(data_set / "alto" / "other rate.wav", 1, 48000)
    (data_set / "alto" / "text.wav").write_text("this is no sound", encoding="utf-8")
    inventory = take_inventory(data_set, 44100)
    assert {"float.wav", "deep.wav"} <= {clip.name for clip in inventory.clips["alto"]}
    assert [clip.name for clip in inventory.unusable] == ["other rate.wav", "text.wav"]
    assert "48000 Hz, the configuration 44100" in inventory.unusable[data_set / "alto" / "other rate.wav"]


@pytest.mark.parametrize("usable", [0, 1, 2])
def test_too_few_clips_are_an_error_with_speaker_count_and_need(data_set, usable):
    (data_set / "few").mkdir()
    for number in range(usable):
        make_clip(data_set / "few" / f"{number}.wav")
    make_clip(data_set / "few" / "tiny.wav", 0.1)
    with pytest.raises(UserError) as caught:
        take_inventory(data_set, 44100)
    for words in (f"few {usable}", "needs 3", "tiny.wav is shorter than 0.3 s"):
        assert words in str(caught.value)
    assert "alto" not in str(caught.value)


LISTS_CANNOT_HOLD = ["a|b", "a\\b", *(f"a{sign}b" for sign in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"), "a\udcff"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", LISTS_CANNOT_HOLD)
def test_a_clip_whose_name_a_filelist_cannot_hold_is_left_out_and_named(data_set, name):
    before = take_inventory(data_set, 44100)
    clip = data_set / "alto" / f"{name}.wav"
    shutil.copyfile(data_set / "alto" / "空 格 (0).wav", clip)
    found = take_inventory(data_set, 44100)
    assert found.clips == before.clips and list(found.unusable) == [clip]
    assert found.unusable[clip].startswith(str(clip)) and "which a filelist cannot hold; rename it" in str(found)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", LISTS_CANNOT_HOLD)
def test_a_speaker_whose_name_a_filelist_cannot_hold_is_left_out_with_one_sentence(data_set, name):
    before = take_inventory(data_set, 44100)
    shutil.copytree(data_set / "alto", data_set / name)
    found = take_inventory(data_set, 44100)
    assert found.clips == before.clips and list(found.unusable) == [data_set / name]
    for other in ("alto", "名 前"):
        shutil.rmtree(data_set / other)
    with pytest.raises(UserError, match="which a filelist cannot hold; rename it"):
        take_inventory(data_set, 44100)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["a|b", "a\u2028b", "a\udcff", " a"])
def test_a_folder_of_speakers_that_a_filelist_cannot_hold_is_refused(data_set, name, monkeypatch):
    monkeypatch.chdir(data_set.parent)
    data_set.rename(name)
    with pytest.raises(UserError, match="filelist"):
        take_inventory(name, 44100)


def test_a_clip_whose_sidecar_files_would_have_too_long_names_is_left_out(data_set):
    longest = data_set / "alto" / ("n" * (255 - len(".wav.f0.edited.npy")) + ".wav")
    make_clip(longest)
    make_clip(longest.with_name(f"n{longest.name}"))
    found = take_inventory(data_set, 44100)
    assert longest in found.clips["alto"]
    (sentence,) = found.unusable.values()
    assert "has a name that is 1 byte too long for the files beside it" in sentence and "shorten it" in sentence


@pytest.mark.parametrize(
    ("one", "other"),
    [("Take.wav", "take.wav"), ("caf\u00e9.wav", "cafe\u0301.wav"), ("Stra\u00dfe.wav", "STRASSE.wav")],
)
def test_of_two_clips_that_are_one_file_elsewhere_the_second_is_left_out_and_names_the_first(data_set, one, other):
    for name in (one, other):
        make_clip(data_set / "alto" / name)
    if len(list((data_set / "alto").iterdir())) < 7:
        pytest.skip("they are one file on this disk")
    first, second = sorted((one, other))
    found = take_inventory(data_set, 44100)
    assert first in [clip.name for clip in found.clips["alto"]]
    assert list(found.unusable) == [data_set / "alto" / second]
    assert f"{second} and {first} would be one file on Windows or macOS" in str(found)


@pytest.mark.parametrize("name", ["Alto", "alto.", "alto "])
def test_of_two_speakers_that_are_one_folder_elsewhere_the_second_is_left_out(data_set, name):
    shutil.copytree(data_set / "alto", data_set / name, dirs_exist_ok=True)
    if len(list(data_set.iterdir())) < 3:
        pytest.skip("they are one folder on this disk")
    first, second = sorted(("alto", name))
    found = take_inventory(data_set, 44100)
    assert list(found.clips) == [first, "名 前"] and list(found.unusable) == [data_set / second]


def test_blanks_and_dots_anywhere_in_names_are_kept_as_they_are(data_set):
    for number in range(3):
        make_clip(data_set / " tenor ." / f"  {number} . .wav")
    train, validation = split(take_inventory(data_set, 44100), "44k", seed=1)
    assert {f"44k/ tenor ./  {number} . .wav" for number in range(3)} < {*train, *validation}


# -- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "tiny", "expected"),
    [
        ("vec768l12", False, (768, 768, 768)),
        ("vec768l12", True, (768, 768, 512)),
        ("vec256l9", False, (256, 256, 768)),
        ("vec256l9", True, (256, 256, 512)),
        ("hubertsoft", False, (256, 256, 768)),
        ("whisper-ppg", False, (1024, 1024, 1024)),
        ("cnhubertlarge", True, (1024, 1024, 512)),
        ("whisper-ppg-large", False, (1280, 1280, 1280)),
    ],
)
def test_widths_follow_the_encoder_as_published(encoder, tiny, expected):
    config, diffusion = fitted_configs({"a": 0}, encoder, tiny=tiny)
    model = config.model
    assert (model.ssl_dim, model.gin_channels, model.filter_channels) == expected
    assert (diffusion.data.encoder, diffusion.data.encoder_out_channels) == (encoder, expected[0])


@pytest.mark.parametrize("encoder", list(ENCODERS))
def test_every_encoder_has_a_configuration_of_its_own_size(encoder):
    config, diffusion = fitted_configs({"a": 0, "b": 1}, encoder)
    assert config.model.speech_encoder == diffusion.data.encoder == encoder
    assert config.model.ssl_dim == diffusion.data.encoder_out_channels == ENCODERS[encoder].ssl_dim
    assert (config.model.n_speakers, diffusion.model.n_spk) == (2, 2)


def test_vol_aug_sets_both_keys():
    plain, loud = (fitted_configs({"a": 0}, "mfcc", vol_aug=vol_aug)[0] for vol_aug in (False, True))
    assert (plain.train.vol_aug, plain.model.vol_embedding) == (False, False)
    assert (loud.train.vol_aug, loud.model.vol_embedding) == (True, True)


def test_an_unknown_encoder_is_refused_with_the_nearest_first():
    with pytest.raises(UserError, match="unknown speech encoder 'vec768l13'; known: vec768l12"):
        fitted_configs({"a": 0}, "vec768l13")


# -- the script -------------------------------------------------------------------------------------------------------


def run_script(folder, *flags):
    command = [sys.executable, ROOT / "preprocess_flist_config.py", *flags]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=120)


def test_the_script_writes_lists_and_configurations_twice_the_same(data_set, tmp_path):
    written = []
    for _ in range(2):
        done = run_script(tmp_path, "--speech_encoder", "mfcc", "--vol_aug")
        assert done.returncode == 0, done.stderr
        names = ("filelists/train.txt", "filelists/val.txt", "configs/config.json", "configs/diffusion.yaml")
        written.append([(tmp_path / name).read_bytes() for name in names])
    assert written[0] == written[1]
    config = json.loads(written[0][2])
    assert config["spk"] == yaml.safe_load(written[0][3])["spk"] == {"alto": 0, "名 前": 1}
    assert config["data"]["training_files"] == "filelists/train.txt"
    assert (config["model"]["ssl_dim"], config["train"]["vol_aug"]) == (72, True)
    assert len(written[0][0].decode("utf-8").splitlines()) == 6


def edit(path, **values):
    """Change keys of the JSON file's ``train`` section, and add an unknown one."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["train"].update(values)
    config["model"]["p_dropout"], config["note"] = 0.2, "mine"
    path.write_text(json.dumps(config), encoding="utf-8")


def test_a_second_run_keeps_what_people_set_and_fresh_does_not(data_set, tmp_path):
    run_script(tmp_path, "--speech_encoder", "mfcc")
    path = tmp_path / "configs/config.json"
    edit(path, batch_size=3, epochs=77)
    (tmp_path / "configs/diffusion.yaml").write_text("train: {batch_size: 7}", encoding="utf-8")
    done = run_script(tmp_path, "--vol_aug")
    assert "kept from configs/config.json (--fresh" in done.stderr
    assert "train.batch_size 3" in done.stderr and "train.epochs 77" in done.stderr
    config = json.loads(path.read_text(encoding="utf-8"))
    assert (config["train"]["batch_size"], config["train"]["epochs"], config["train"]["vol_aug"]) == (3, 77, True)
    assert (config["model"]["speech_encoder"], config["model"]["p_dropout"], config["note"]) == ("mfcc", 0.2, "mine")
    assert yaml.safe_load((tmp_path / "configs/diffusion.yaml").read_text(encoding="utf-8"))["train"]["batch_size"] == 7
    assert run_script(tmp_path, "--fresh", "--speech_encoder", "mfcc").returncode == 0
    config = json.loads(path.read_text(encoding="utf-8"))
    assert (config["train"]["batch_size"], config["train"]["vol_aug"], "note" in config) == (6, False, False)


def test_another_encoder_brings_its_own_sizes_and_leaves_the_training_as_it_was(data_set, tmp_path):
    run_script(tmp_path, "--speech_encoder", "mfcc")
    edit(tmp_path / "configs/config.json", epochs=77)
    run_script(tmp_path, "--speech_encoder", "vec256l9", "--tiny")
    config = json.loads((tmp_path / "configs/config.json").read_text(encoding="utf-8"))
    model = config["model"]
    assert (model["ssl_dim"], model["use_depthwise_conv"], config["train"]["epochs"]) == (256, True, 77)
    run_script(tmp_path)
    again = json.loads((tmp_path / "configs/config.json").read_text(encoding="utf-8"))
    assert again == config


def test_another_encoder_leaves_the_loudness_embedding_and_the_decoder_as_they_were(data_set, tmp_path):
    run_script(tmp_path, "--speech_encoder", "whisper-ppg", "--vol_aug")
    path = tmp_path / "configs/config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["model"]["vocoder_name"] = "nsf-snake-hifigan"
    path.write_text(json.dumps(config), encoding="utf-8")
    run_script(tmp_path, "--speech_encoder", "vec256l9")
    config = json.loads(path.read_text(encoding="utf-8"))
    model = config["model"]
    assert (model["vol_embedding"], config["train"]["vol_aug"]) == (True, True)
    assert (model["vocoder_name"], model["gin_channels"], model["filter_channels"]) == ("nsf-snake-hifigan", 256, 768)


def test_speaker_numbers_of_a_run_with_other_voices_do_not_count(data_set, tmp_path):
    run_script(tmp_path, "--speech_encoder", "mfcc")
    own = (tmp_path / "configs/config.json").read_text(encoding="utf-8")
    (tmp_path / "logs/44k").mkdir(parents=True)
    other = json.loads(own) | {"spk": {"carol": 0, "dave": 1}}
    (tmp_path / "logs/44k/config.json").write_text(json.dumps(other), encoding="utf-8")
    run_script(tmp_path)
    assert json.loads((tmp_path / "configs/config.json").read_text(encoding="utf-8"))["spk"] == {"alto": 0, "名 前": 1}


@pytest.mark.parametrize("source", ["configs/config.json", "logs/44k/config.json"])
def test_new_speakers_get_the_numbers_behind_those_that_a_model_has(data_set, tmp_path, source):
    run_script(tmp_path, "--speech_encoder", "mfcc")
    former = (tmp_path / "configs/config.json").read_text(encoding="utf-8").replace('"alto"', '"zoe"')
    if source.startswith("logs"):
        (tmp_path / "configs/config.json").unlink()
    (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / source).write_text(former, encoding="utf-8")
    done = run_script(tmp_path, "--speech_encoder", "mfcc")
    assert f"speaker numbers of {source} are kept; new: alto; without clips: zoe" in done.stderr
    config = json.loads((tmp_path / "configs/config.json").read_text(encoding="utf-8"))
    assert config["spk"] == {"zoe": 0, "名 前": 1, "alto": 2} and config["model"]["n_speakers"] == 3
    assert yaml.safe_load((tmp_path / "configs/diffusion.yaml").read_text(encoding="utf-8"))["spk"] == config["spk"]


def test_a_former_configuration_that_cannot_be_read_is_refused_and_stays(data_set, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/config.json").write_text("{broken", encoding="utf-8")
    done = run_script(tmp_path)
    assert done.returncode == 2 and "configs/config.json is not valid JSON" in done.stderr and "--fresh" in done.stderr
    assert (tmp_path / "configs/config.json").read_text(encoding="utf-8") == "{broken"
    assert not (tmp_path / "filelists").exists()


def test_wrong_input_is_one_sentence_and_exit_code_2_with_nothing_written(tmp_path):
    for flags, words in (((), "resample.py"), (("--speech_encoder", "mfc"), "known: mfcc")):
        done = run_script(tmp_path, *flags)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1 and words in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_stands_in_the_way_of_one_file_is_met_before_any_is_written(data_set, tmp_path):
    (tmp_path / "configs").write_text("a file where a folder is needed", encoding="utf-8")
    done = run_script(tmp_path, "--speech_encoder", "mfcc")
    assert done.returncode == 2 and "configs" in done.stderr
    assert [path for path in tmp_path.glob("filelists/*")] == []


def test_a_clip_of_another_rate_is_named_and_the_exit_code_is_1(data_set, tmp_path):
    make_clip(data_set / "alto" / "slow.wav", 1, 22050)
    done = run_script(tmp_path, "--speech_encoder", "mfcc")
    assert done.returncode == 1 and "slow.wav has 22050 Hz" in done.stderr
    assert "slow.wav" not in (tmp_path / "filelists/train.txt").read_text(encoding="utf-8")
