"""modules/data/file_name.py: accepted names can be written, listed and read back; refused names cannot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.data.features import LONGEST_ENDING, ClipFiles, clip_flaw
from modules.data.file_name import is_one_folder, list_flaw, result_flaw, same_file_key, speaker_flaw

ANY_TEXT = st.text(st.characters(), max_size=300)  # lone surrogates too, as names that are not Unicode have them


def as_the_original_reads(line: str) -> list[str]:
    """Read one line of a filelist in both ways of so-vits-svc 4.1; returns the first field of each."""
    try:
        text = f"{line}\n".encode().decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeEncodeError:
        return []
    return [line.split("|")[0] for line in text.split("\n")[:-1]] + text.splitlines()


@given(ANY_TEXT)
def test_a_filelist_accepts_a_text_if_and_only_if_all_readers_return_it(text):
    line = f"./{text}.wav"
    held = as_the_original_reads(line) == [line, line] and line.replace("\\", "/") == line
    assert (list_flaw(text) is None) == held


@pytest.mark.skipif(os.name == "nt", reason="counts UTF-16 code units there")
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/|\\\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"),
               min_size=1), st.integers(0, 260))  # fmt: skip
def test_a_clip_is_refused_by_its_length_if_and_only_if_a_file_beside_it_would_be_too_long(sign, count):
    name = (sign * 260)[:count] + ".wav"
    longest = max(len(os.fsencode(path.name)) for path in ClipFiles(Path("44k/a") / name).beside)
    assert longest == len(os.fsencode(name + LONGEST_ENDING))
    assert (clip_flaw(name) is None) == (longest <= 255)
    if longest > 255:
        assert f"{longest - 255} byte" in clip_flaw(name)


@given(ANY_TEXT)
def test_a_folder_inside_another_is_just_that(name):
    path = Path("top") / name
    assert is_one_folder(name) == (path.parent == Path("top") and path.name == name and name != "..")
    assert speaker_flaw(name) is not None or is_one_folder(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a/", "./a"])
def test_a_path_that_leads_elsewhere_is_no_folder(name):
    assert not is_one_folder(name) and "rename" in speaker_flaw(name)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Take", "tAKE"), ("caf\u00e9", "CAFE\u0301"), ("a.", "a"), ("a ", "a"), ("\u1e9e", "SS"), ("\u212b", "\u00e5")],
)
def test_names_of_one_file_elsewhere_have_one_key(one, other):
    assert same_file_key(one) == same_file_key(other) != same_file_key("b")


@pytest.mark.parametrize(("one", "other"), [("a", "á"), (" a", "a"), (".a", "a"), ("a b", "ab"), ("a.wav", "a.flac")])
def test_names_of_two_files_everywhere_have_two_keys(one, other):
    assert same_file_key(one) != same_file_key(other)


@pytest.mark.skipif(os.name == "nt", reason="counts UTF-16 code units there")
def test_a_number_is_offered_for_a_name_that_it_shortens_enough():
    assert result_flaw("n" * 255, "anna") is None
    assert result_flaw("n" * 256, "anna") == "would have a name 1 byte too long; rename the song"
    assert "or give the speaker's number" in result_flaw("n" * 256, "a" * 100)


def test_windows_forbids_more_characters(monkeypatch):
    assert result_flaw("song_a:b.wav", "a:b") is None or os.name == "nt"
    with monkeypatch.context() as patch:
        patch.setattr("modules.data.file_name.os.name", "nt")
        for sign in '<>:"/\\|?*\n\x01':
            assert "give the speaker's number with spk" in result_flaw(f"song_a{sign}b.wav", f"a{sign}b")
        assert result_flaw("名" * 255, "a") is None and "1 character too long" in result_flaw("名" * 256, "a")
