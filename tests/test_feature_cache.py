"""The cache of units and F0."""

import os

import numpy as np
import pytest

from inference.feature_cache import FeatureCache, content_key

VALUE = np.arange(1000, dtype=np.float32)


def refuse():
    raise AssertionError("computed again")


def test_a_value_is_computed_once_for_all_that_share_the_folder(tmp_path):
    first = FeatureCache(tmp_path)
    assert first.get("a", VALUE.copy) is first.get("a", refuse)
    with pytest.raises(ValueError, match="read-only"):
        first.get("a", refuse)[0] = 1
    np.testing.assert_array_equal(FeatureCache(tmp_path, in_memory=0).get("a", refuse), VALUE)


def test_without_memory_and_folder_nothing_is_kept():
    cache = FeatureCache(in_memory=0)
    cache.get("a", VALUE.copy)
    with pytest.raises(AssertionError, match="computed again"):
        cache.get("a", refuse)


def test_memory_holds_the_most_recently_used():
    cache = FeatureCache(in_memory=2 * VALUE.nbytes)
    for key in "abac":
        cache.get(key, VALUE.copy)
    cache.get("a", refuse), cache.get("c", refuse)
    with pytest.raises(AssertionError):
        cache.get("b", refuse)


def test_the_folder_stays_within_its_limit_and_loses_the_oldest(tmp_path):
    keys = [f"{number:040x}" for number in range(30)]
    np.save(tmp_path / "song.wav.f0.npy", np.zeros(10**6))  # a file of the user's
    cache = FeatureCache(tmp_path, in_memory=0, on_disk=10 * VALUE.nbytes)
    for number, key in enumerate(keys):
        cache.get(key, VALUE.copy)
        os.utime(tmp_path / f"{key}.npy", ns=(number, number))
        if number == 20:
            cache.get(keys[18], refuse)  # used again
    left = sorted(path.stem for path in tmp_path.glob("0*.npy"))
    assert sum(path.stat().st_size for path in tmp_path.glob("0*")) <= 11 * VALUE.nbytes
    assert left[0] == keys[18] and left[-1] == keys[29]
    assert (tmp_path / "song.wav.f0.npy").exists()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"not an array", None])
def test_a_damaged_file_is_computed_and_written_again(tmp_path, content):
    FeatureCache(tmp_path).get("a", VALUE.copy)
    path = tmp_path / "a.npy"
    if content is None:
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(content)
    np.testing.assert_array_equal(FeatureCache(tmp_path).get("a", VALUE.copy), VALUE)
    np.testing.assert_array_equal(FeatureCache(tmp_path).get("a", refuse), VALUE)


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = FeatureCache(tmp_path / "file")
    np.testing.assert_array_equal(cache.get("a", VALUE.copy), VALUE)
    assert "goes on without it" in caplog.text


def test_keys_differ_with_the_sound_and_every_setting():
    sounds = [(VALUE, "a", 1), (VALUE, "a", 2), (VALUE, "a"), (VALUE[1:], "a")]
    keys = {content_key(*one) for one in sounds}
    assert len(keys) == 4
    assert content_key(VALUE.copy(), "a", 1) in keys
