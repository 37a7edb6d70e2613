"""Which sidecar files of a clip are stale, valid or kept."""

import os
import shutil

import numpy as np
import pytest

from modules.data.features import Augmented, ClipFiles
from preparation.fingerprints import check, invalidate, write_fingerprint

RECIPES = {"f0": {"f0_predictor": "pm", "hop_length": 512}, "volume": {"hop_length": 512}}


@pytest.fixture
def files(tmp_path):
    """A clip with two valid sidecar files."""
    files = ClipFiles(tmp_path / "speaker" / "x.wav")
    files.wav.parent.mkdir()
    files.wav.write_bytes(b"sound of a certain length")
    make(files, RECIPES)
    return files


def make(files, recipes):
    found = check(files, recipes)
    invalidate(files, found)
    files.write_f0(np.ones(3), np.ones(3))
    files.write_volume(np.ones(3))
    write_fingerprint(files, found, recipes)


def fits(files, name):
    return True


def test_files_that_match_the_fingerprint_are_valid(files):
    assert check(files, RECIPES).stale == {}


def test_another_setting_makes_only_its_file_stale(files):
    changed = {**RECIPES, "f0": {"f0_predictor": "dio", "hop_length": 512}}
    assert check(files, changed).stale == {"f0": "that had other settings"}
    make(files, changed)
    assert check(files, changed).stale == {}


def test_a_changed_clip_of_the_same_length_makes_all_stale(files):
    files.wav.write_bytes(b"SOUND of a certain length")
    os.utime(files.wav, ns=(1, 1))
    assert check(files, RECIPES).stale == dict.fromkeys(RECIPES, "of changed clips")


def test_files_outside_the_recipes_are_deleted_only_if_the_clip_changed(files):
    def meant(names):
        return {name: recipe for name, recipe in RECIPES.items() if name in names}

    invalidate(files, check(files, meant(["f0"])))
    assert files.volume.exists()
    files.wav.write_bytes(b"another sound")
    found = check(files, meant(["f0"]))
    assert found.stale == {"f0": "of changed clips"} and found.outdated == ("volume",)
    invalidate(files, found)
    assert not files.volume.exists() and files.f0.exists()


def test_both_augmented_files_are_valid_only_together(files):
    recipes = {"augmented": {"sampling_rate": 44100}}
    found = check(files, recipes)
    assert found.stale == {"augmented": "that were missing"}
    files.write_augmented(Augmented(np.ones((3, 2)), np.ones(3), 1.0))
    assert check(files, recipes).stale == {"augmented": "of unknown origin"}
    write_fingerprint(files, found, recipes)
    assert check(files, {**RECIPES, **recipes}).stale == {}
    for path in files.paths("augmented"):
        path.write_bytes(path.read_bytes()[:-4])
        assert check(files, recipes).stale == {"augmented": "that were damaged"}
        path.unlink()
        assert check(files, recipes).stale == {"augmented": "that were missing"}
        files.write_augmented(Augmented(np.ones((3, 2)), np.ones(3), 1.0))


def test_a_copy_or_a_touch_is_no_change(files, tmp_path):
    shutil.copytree(files.wav.parent, tmp_path / "copy", copy_function=shutil.copyfile)
    copied = ClipFiles(tmp_path / "copy" / "x.wav")
    os.utime(copied.wav, ns=(5, 5))
    assert check(copied, RECIPES).stale == {}


def test_missing_and_damaged_files_have_different_reasons(files):
    files.volume.unlink()
    files.f0.write_bytes(files.f0.read_bytes()[:-4])
    assert check(files, RECIPES).stale == {"f0": "that were damaged", "volume": "that were missing"}


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"clip": 3}', '{"f0": {}}', "[" * 100_000, "9" * 9000])
def test_files_without_a_readable_fingerprint_are_stale(files, content):
    files.fingerprint.unlink()
    if content is not None:
        files.fingerprint.write_text(content, encoding="utf-8")
    assert set(check(files, RECIPES).stale) == {"f0", "volume"}


def test_files_of_a_killed_run_are_stale_for_both_settings(files):
    changed = {**RECIPES, "f0": {"f0_predictor": "dio", "hop_length": 512}}
    found = check(files, changed)
    invalidate(files, found)
    files.write_f0(np.full(3, 2.0), np.ones(3))  # as many bytes as before; the run dies here
    assert check(files, RECIPES, fits).stale == {"f0": "that were unfinished"}
    assert check(files, changed, fits).stale == {"f0": "that were unfinished"}


def test_files_outside_the_recipes_stay_valid(files):
    make(files, {"f0": {"f0_predictor": "dio", "hop_length": 512}})
    assert set(check(files, RECIPES).stale) == {"f0"}


def edit_f0(files, frames=3):
    np.save(files.f0, np.full((2, frames), 7.0))


def test_an_edited_f0_is_kept_where_it_fits_and_then_stays_with_any_predictor(files):
    other = {**RECIPES, "f0": {"f0_predictor": "dio", "hop_length": 512}}
    edit_f0(files)
    assert check(files, RECIPES).stale == {"f0": "that were damaged"}
    for recipes in (RECIPES, other):
        found = check(files, recipes, fits)
        assert (found.stale, found.kept) == ({}, ["f0"])
        write_fingerprint(files, found, recipes)
    assert check(files, other).kept == ["f0"], "the fingerprint marks it as kept now"
    edit_f0(files, 4)
    assert check(files, other).stale == {"f0": "that were damaged"}


@pytest.mark.parametrize("how", ["does not fit", "the clip changed", "no fingerprint"])
def test_an_f0_that_may_be_edited_by_hand_is_renamed_and_not_overwritten(files, how):
    edit_f0(files, 4)
    edited = files.f0.read_bytes()
    if how == "the clip changed":
        files.wav.write_bytes(b"another sound")
    elif how == "no fingerprint":
        files.fingerprint.unlink()
    found = check(files, RECIPES)
    assert any("is now *.wav.f0.edited.npy" in reason for reason in found.reasons)
    make(files, RECIPES)
    assert files.wav.with_name("x.wav.f0.edited.npy").read_bytes() == edited
    assert check(files, RECIPES).stale == {}


def test_an_f0_of_this_programs_own_is_overwritten(files):
    make(files, {**RECIPES, "f0": {"f0_predictor": "dio", "hop_length": 512}})
    files.wav.write_bytes(b"another sound")
    make(files, RECIPES)
    assert not files.wav.with_name("x.wav.f0.edited.npy").exists()


def test_an_f0_edited_to_as_many_bytes_is_known_by_its_hash_when_the_predictor_changes(files):
    other = {**RECIPES, "f0": {"f0_predictor": "dio", "hop_length": 512}}
    assert check(files, other, fits).stale == {"f0": "that had other settings"}
    files.write_f0(np.full(3, 9.0), np.ones(3))
    assert check(files, other, fits).stale == {}


def test_what_is_older_than_its_clip_is_not_kept(files):
    files.fingerprint.unlink()
    assert check(files, RECIPES, fits).kept == ["f0", "volume"]
    os.utime(files.volume, ns=(0, files.wav.stat().st_mtime_ns - 1))
    found = check(files, RECIPES, fits)
    assert (found.kept, found.stale) == (["f0"], {"volume": "of unknown origin"})


def test_what_is_as_old_as_its_clip_is_kept(files):
    """A copy can give all files of a folder the same time."""
    files.fingerprint.unlink()
    for path in (files.wav, files.f0, files.volume):
        os.utime(path, ns=(10**18, 10**18))
    assert check(files, RECIPES, fits).kept == ["f0", "volume"]


def test_kept_files_are_made_anew_for_another_recipe_another_clip_or_on_request(files):
    files.fingerprint.unlink()
    write_fingerprint(files, check(files, RECIPES, fits), RECIPES)
    other = {**RECIPES, "volume": {"hop_length": 256}}
    assert check(files, other, fits).stale == {"volume": "that had other settings"}
    assert check(files, RECIPES, fits, remake=True).stale == dict.fromkeys(RECIPES, "as requested")
    files.wav.write_bytes(b"another sound")
    assert check(files, RECIPES, fits).stale == dict.fromkeys(RECIPES, "of changed clips")
