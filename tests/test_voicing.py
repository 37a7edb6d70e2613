"""A song in which the predictor finds little F0 gets a warning with the predictor's range and a cure."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import soundfile

from inference.conversion import Conversion
from inference.song import Song
from inference.svc import Svc
from inference.voicing import Voicing
from tests.test_svc import RATE, write_model, write_song

HOP = 512


@pytest.fixture(scope="module")
def svc(tmp_path_factory) -> Svc:
    return Svc(*write_model(tmp_path_factory.mktemp("model")), "cpu")


def converted(svc: Svc, path, caplog, predictor: str = "pm") -> list[str]:
    """The warnings of a conversion."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "svc.convert"):
        list(svc.convert(Song(path), Conversion("alto", f0_predictor=predictor)))
    return [record.getMessage() for record in caplog.records]


def test_a_song_without_f0_gets_a_warning_with_predictor_range_and_cure(svc, tmp_path, caplog):
    noise = np.random.default_rng(0).normal(0, 0.1, RATE)
    soundfile.write(tmp_path / "hiss.wav", noise, RATE)
    (warning,) = converted(svc, tmp_path / "hiss.wav", caplog)
    assert "hiss.wav: pm finds no F0 in" in warning and "loud frames" in warning and "50 to 1100 Hz" in warning
    assert "f0_predictor dio, harvest, crepe, rmvpe, fcpe" in warning and "threshold" not in warning, (
        "pm has no threshold"
    )


def test_the_threshold_is_a_cure_for_networks():
    voicing = Voicing()
    voicing.add(np.random.default_rng(0).normal(0, 0.1, 20 * HOP), np.zeros(20), HOP)
    assert "a lower cr_threshold" in voicing.warning("song.wav", "crepe")


def test_a_sung_song_gets_no_warning_even_after_a_hiss(svc, tmp_path, caplog):
    soundfile.write(tmp_path / "hiss.wav", np.random.default_rng(0).normal(0, 0.1, RATE), RATE)
    song = write_song(tmp_path / "song.wav", 1.0, gaps=(0.5,))
    assert len(converted(svc, tmp_path / "hiss.wav", caplog)) == 1
    assert converted(svc, song, caplog) == []


def test_all_pieces_of_a_song_count_together(svc, tmp_path, caplog):
    song, _ = soundfile.read(write_song(tmp_path / "song.wav", 3.0))
    hiss = np.random.default_rng(0).normal(0, 0.1, RATE)
    soundfile.write(tmp_path / "both.wav", np.concatenate([hiss, np.zeros(RATE), song]), RATE)
    assert converted(svc, tmp_path / "both.wav", caplog) == []


def test_only_loud_frames_count():
    frames = 100
    audio = np.random.default_rng(0).normal(0, 0.1, (frames, HOP))
    uv = np.ones(frames)
    audio[30:] *= 10 ** (-25 / 20)
    uv[30:] = 0  # breaths 25 dB below
    quiet, click = Voicing(), Voicing()
    quiet.add(audio.reshape(-1), uv, HOP)
    assert quiet.share == 1.0
    audio[0], uv[0] = 5 * np.sign(audio[0]), 0  # one loud knock does not make the rest quiet
    click.add(audio.reshape(-1), uv, HOP)
    assert click.share == pytest.approx(29 / 30)


def test_silence_offsets_and_nothing_at_all_are_no_loss():
    voicing = Voicing()
    assert voicing.share == 1.0
    voicing.add(np.full(10 * HOP, 0.2, np.float32), np.zeros(10), HOP)
    voicing.add(np.zeros(100, np.float32), np.zeros(0), HOP)
    assert not voicing.is_lost
