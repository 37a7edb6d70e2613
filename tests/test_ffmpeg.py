"""Files that libsndfile does not read are decoded by ffmpeg (a stand-in here), or refused with the cure."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import resample
from modules.audio import ffmpeg
from modules.audio.files import read_audio
from modules.audio.mono_file import MonoFile
from modules.console import UserError

RATE = 8000
STAND_IN = """#!{python}
import pathlib, shutil, sys
source = pathlib.Path(sys.argv[sys.argv.index("-i") + 1].removeprefix("file:"))
with open({log!r}, "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
if source.read_bytes()[:4] != b"RIFF":
    sys.exit(f"file:{{source}}: Invalid data found when processing input")
shutil.copyfile(source, sys.argv[-1])
"""


@pytest.fixture
def program(tmp_path, monkeypatch) -> Path:
    """A program called ffmpeg, which copies WAV files; the log of its arguments."""
    log, folder = tmp_path / "ffmpeg.log", tmp_path / "bin"
    folder.mkdir()
    (folder / "ffmpeg").write_text(STAND_IN.format(python=sys.executable, log=str(log)), encoding="utf-8")
    (folder / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    ffmpeg._decode.cache_clear()
    return log


def write(path: Path, seconds: float = 1.0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = (0.5 * np.sin(2 * np.pi * 200 * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)
    soundfile.write(path, audio, RATE, format="WAV", subtype="FLOAT")
    return audio


@pytest.mark.parametrize("suffix", [".m4a", ".MP4", ".aac", ".wma", ".webm"])
def test_a_file_is_decoded_once_and_read_whole(tmp_path, program, suffix):
    audio = write(tmp_path / f"song{suffix}")
    sound = MonoFile(tmp_path / f"song{suffix}")
    sound.measure(2048, 512)
    np.testing.assert_array_equal(sound.read(), audio)
    (call,) = program.read_text(encoding="utf-8").splitlines()
    assert "-protocol_whitelist file" in call and "-map 0:a:0" in call


def test_a_file_that_changes_is_decoded_again(tmp_path, program):
    for seconds in (1.0, 2.0):
        audio = write(tmp_path / "song.m4a", seconds)
        np.testing.assert_array_equal(read_audio(tmp_path / "song.m4a")[0], audio)


def test_a_file_that_ffmpeg_cannot_decode_is_refused_with_its_message(tmp_path, program):
    (tmp_path / "song.m4a").write_bytes(b"no sound")
    with pytest.raises(UserError, match=r"song.m4a cannot be read: ffmpeg reports 'Invalid data found"):
        read_audio(tmp_path / "song.m4a")


def test_a_video_without_sound_is_called_so(tmp_path, program):
    script = tmp_path / "bin" / "ffmpeg"
    words = "Stream map '0:a:0' matches no streams.\\nTo ignore this, add a trailing '?' to the map."
    script.write_text(f"#!{sys.executable}\nimport sys\nsys.exit(\"{words}\")\n", encoding="utf-8")
    (tmp_path / "song.mp4").write_bytes(b"a video")
    with pytest.raises(UserError, match=r"song.mp4 holds no sound track; it may be a video without sound"):
        read_audio(tmp_path / "song.mp4")


@pytest.mark.parametrize(
    "start", [b"\0\0\0\x1cftypM4A ", b"\x1aE\xdf\xa3", b"0&\xb2u\x8ef\xcf\x11", b"wvpk", b"MAC ", b"TTA1"]
)
@pytest.mark.parametrize("name", ["song.mp3", "song.wav", "song"])
def test_a_file_is_known_by_its_first_bytes_whatever_it_is_called(tmp_path, program, monkeypatch, name, start):
    path = tmp_path / "anna" / name
    path.parent.mkdir()
    path.write_bytes(start + bytes(100_000))
    with pytest.raises(UserError, match=f"{name} cannot be read: ffmpeg reports 'Invalid data found"):
        read_audio(path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=f"{name} needs ffmpeg to be read; install it"):
        read_audio(path)


def test_without_ffmpeg_the_files_fail_with_the_cure_and_their_speaker_is_named(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setenv("PATH", "")
    ffmpeg._decode.cache_clear()
    write(tmp_path / "in/anna/a.wav")
    write(tmp_path / "in/berta/b.m4a")
    (tmp_path / "in/carla").mkdir()
    arguments = ["--in_dir", str(tmp_path / "in"), "--out_dir2", str(tmp_path / "out"), "--num_processes", "1"]
    assert resample.main(arguments) == 1
    assert "b.m4a needs ffmpeg to be read; install it (ffmpeg.org), or export" in caplog.text
    for name in ("berta", "carla"):
        assert f"no clip was made from {tmp_path / 'in' / name}" in caplog.text
    assert f"no clip was made from {tmp_path / 'in/anna'}" not in caplog.text


def test_a_folder_without_recordings_is_refused_with_the_skipped_files(tmp_path, capsys):
    (tmp_path / "in/anna").mkdir(parents=True)
    (tmp_path / "in/anna/words.txt").write_text("no sound", encoding="utf-8")
    write(tmp_path / "in/loose.wav")
    assert resample.main(["--in_dir", str(tmp_path / "in"), "--out_dir2", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "holds no recordings" in error and "words.txt: not sound" in error and "loose.wav: it lies beside" in error
