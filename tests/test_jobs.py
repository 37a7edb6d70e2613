"""Each song of a command has its settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.conversion import Conversion
from inference.jobs import plan


@pytest.fixture
def songs(tmp_path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        Path(f"{name}.wav").touch()
    return ["a", "b", "c"]


def test_each_song_has_its_own_shift_and_a_missing_one_is_the_first(songs):
    jobs, missing = plan(songs, [3, -2], ["alto"], Conversion("", tran=7), "sovits", Path("out"), "wav")
    assert not missing
    assert [(job.song.name, job.conversion.tran) for job in jobs] == [("a.wav", 3), ("b.wav", -2), ("c.wav", 3)]


def test_each_song_is_converted_for_each_speaker_with_all_other_settings_unchanged(songs):
    conversion = Conversion("", slice_db=-30, noice_scale=0.7)
    jobs, _ = plan(songs[:1], [0], ["alto", "tenor"], conversion, "sovits", Path("out"), "wav")
    assert [job.conversion for job in jobs] == [
        Conversion("alto", slice_db=-30, noice_scale=0.7),
        Conversion("tenor", slice_db=-30, noice_scale=0.7),
    ]
