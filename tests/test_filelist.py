"""modules/data/filelist.py: filelists are read completely, and unusable clips are named with the reason."""

import os

import numpy as np
import pytest

from modules.audio.files import write_audio
from modules.console import UserError
from modules.data.features import ClipFiles
from modules.data.filelist import read_filelist, speaker_id, usable_clips
from tests.tiny import write_clip

RATE = 44100


@pytest.fixture
def clips(tmp_path):
    """Four clips with their sidecar files."""
    paths = [tmp_path / "声 a" / f"{index}.wav" for index in range(4)]
    paths[0].parent.mkdir()
    for index, path in enumerate(paths):
        write_clip(path, 0.4, seed=index)
    return paths


def test_a_list_is_read_in_order_with_fields_and_windows_separators(clips, tmp_path):
    lines = [str(clips[1]), "", f"{clips[0]}|field", str(clips[2]).replace("/", "\\")]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    assert read_filelist(tmp_path / "list.txt") == [clips[1], clips[0], clips[2]]


@pytest.mark.parametrize(
    ("mark", "ending"),
    [("", "\n"), ("\ufeff", "\n"), ("", "\r\n"), ("\ufeff", " \t\r\n"), ("", "\n\n \n"), ("", "|x \n")],
)
def test_marks_line_ends_and_blanks_of_an_editor_change_nothing(clips, tmp_path, mark, ending):
    lines = "".join(f"{clip}{ending}" for clip in clips)
    for text in (mark + lines, mark + lines.rstrip()):
        (tmp_path / "list.txt").write_bytes(text.encode("utf-8"))
        assert read_filelist(tmp_path / "list.txt") == clips


@pytest.mark.parametrize("sign", list("\v\f\x1c\x1d\x1e\x85\u2028\u2029"))
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_filelist_is_split_only_at_line_feeds_not_at_other_unicode_line_ends(clips, tmp_path, sign):
    odd = clips[0].rename(clips[0].with_name(f"a{sign}b.wav"))
    (tmp_path / "list.txt").write_text(f"{odd}\n{clips[1]}\n", encoding="utf-8")
    assert read_filelist(tmp_path / "list.txt") == [odd, clips[1]]


def test_an_impossible_file_name_counts_as_missing(clips, tmp_path):
    for name in ("n" * 300, "\0"):
        (tmp_path / "list.txt").write_text(f"{clips[0]}\n{name}\n", encoding="utf-8")
        with pytest.raises(UserError, match="1 of its 2 clips are missing"):
            read_filelist(tmp_path / "list.txt")


def test_a_clip_whose_sidecar_files_can_have_no_name_is_left_out(clips, caplog):
    long = clips[0].rename(clips[0].with_name("n" * 250 + ".wav"))
    assert usable_clips([long, clips[1]], ("units",), RATE) == [clips[1]]
    assert f"{long} is left out: there is no {long.name}.soft.pt" in caplog.text


def test_an_unusable_filelist_is_refused_with_the_reason(clips, tmp_path):
    path = tmp_path / "list.txt"
    with pytest.raises(UserError, match="there is no .*list.txt; run 'python preprocess_flist_config.py' first"):
        read_filelist(path)
    for content, words in ((b" \n", "names no clip"), (b"\xff\xfe\xff", "not UTF-8")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=words):
            read_filelist(path)
    path.write_text("\n".join(map(str, clips)), encoding="utf-8")
    clips[2].unlink()
    with pytest.raises(UserError, match=f"1 of its {len(clips)} clips are missing, first {clips[2]}"):
        read_filelist(path)


def test_clips_that_cannot_be_used_are_left_out_with_the_reason(clips, caplog):
    write_audio(clips[0], np.zeros(96000, np.float32), 96000)
    clips[1].write_bytes(b"damaged")
    ClipFiles(clips[2]).f0.unlink()
    assert usable_clips(clips, ("units", "f0"), RATE) == [clips[3]]
    assert "it has 96000 Hz and the config 44100" in caplog.text
    assert f"{clips[1]} is left out" in caplog.text
    assert f"there is no {clips[2].name}.f0.npy; run 'python preprocess_hubert_f0.py' again" in caplog.text
    assert usable_clips(clips[2:], ("units",), RATE) == clips[2:]


def test_no_clip_at_all_is_an_error_with_the_first_reason_and_the_command_that_cures(clips):
    with pytest.raises(UserError, match=r"none of the 4 clips .* there is no 0\.wav\.mel\.npy; run 'make mels' again"):
        usable_clips(clips, ("units", "mel"), RATE, maker="make mels")
    with pytest.raises(UserError, match="shorter than a training slice"):
        usable_clips(clips, ("units",), RATE, shortest=RATE)


def test_the_speaker_is_the_folder(clips):
    assert speaker_id(clips[0], {"b": 0, "声 a": 1}) == 1
    with pytest.raises(UserError, match=r"no speaker of the config \(known: 声 b, tenor\)"):
        speaker_id(clips[0], {"tenor": 0, "声 b": 1})


def test_a_name_too_long_for_any_file_is_missing(clips, tmp_path):
    (tmp_path / "list.txt").write_text("a" * 1_000_000 + "\n" + "b/" * 100_000 + "\0\n", encoding="utf-8")
    with pytest.raises(UserError, match="2 of its 2 clips are missing") as refused:
        read_filelist(tmp_path / "list.txt")
    assert len(str(refused.value)) < 3000


def test_a_filelist_in_utf_16_is_read(tmp_path):
    clip = tmp_path / "明.wav"
    clip.touch()
    (tmp_path / "train.txt").write_text(f"{clip}\r\n", encoding="utf-16")
    assert read_filelist(tmp_path / "train.txt") == [clip]
