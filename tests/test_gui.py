"""The script gui.py: a file through the live engine, its table, and wrong input."""

import re

import numpy as np
import pytest

import gui
from modules.audio.files import read_audio, write_audio
from tests.live_stands import RATE, small_svc, vowel


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    small_svc(folder, local=False)
    return folder / "G_0.pth"


def test_a_file_is_converted_as_live_and_the_table_names_its_delay(model, tmp_path, capsys):
    sound = np.concatenate((np.zeros(RATE, np.float32), vowel(2)))
    write_audio(tmp_path / "in.wav", sound, RATE)
    arguments = ["--file", str(tmp_path / "in.wav"), "--out", str(tmp_path / "out.wav"), "-m", str(model)]
    assert gui.main([*arguments, "-s", "alto", "-f0p", "pm", "--block", "0.25", "--fixed_delay", "3"]) == 0
    printed = capsys.readouterr().out
    delays = {name: float(ms) for name, ms in re.findall(r"^([a-z-]+) +([\d.]+)$", printed, re.MULTILINE)}
    assert set(delays) == {"buffering", "look-ahead", "compute", "device", "sum"}
    assert delays["sum"] == pytest.approx(3000, abs=0.02)
    assert sum(delays.values()) - delays["sum"] == pytest.approx(delays["sum"], abs=0.03)
    for stage in ("encoder", "F0", "prior and flow", "decoder", "all"):
        assert re.search(rf"^{stage} +[\d.]+ +[\d.]+ +[\d.]+$", printed, re.MULTILINE), stage
    heard, rate = read_audio(tmp_path / "out.wav")
    assert rate == RATE and len(heard) == len(sound) + 3 * RATE
    loud = np.flatnonzero(np.abs(heard) > 0.01)
    assert loud[0] / RATE == pytest.approx(4, abs=0.1)  # a second of silence, and the delay


def test_a_file_of_an_odd_rate_has_the_delay_of_any_other(model, tmp_path, capsys):
    write_audio(tmp_path / "in.wav", vowel(1, rate=22051), 22051)
    arguments = ["--file", str(tmp_path / "in.wav"), "--out", str(tmp_path / "out.wav"), "-m", str(model)]
    assert gui.main([*arguments, "-s", "alto", "-f0p", "pm"]) == 0
    assert float(re.search(r"^buffering +([\d.]+)$", capsys.readouterr().out, re.MULTILINE)[1]) < 300
    heard, rate = read_audio(tmp_path / "out.wav")
    assert rate == RATE and len(heard) > RATE


def test_file_and_out_belong_together(tmp_path, capsys):
    assert gui.main(["--file", "in.wav"]) == 2
    assert "--out" in capsys.readouterr().err


def test_the_recording_is_not_overwritten(model, tmp_path, capsys):
    write_audio(tmp_path / "in.wav", vowel(1), RATE)
    path = str(tmp_path / "in.wav")
    assert gui.main(["--file", path, "--out", path, "-m", str(model)]) == 2
    assert "written over" in capsys.readouterr().err


def test_a_delay_that_is_too_short_is_refused_with_the_least_one(model, tmp_path, capsys):
    write_audio(tmp_path / "in.wav", vowel(1), RATE)
    arguments = ["--file", str(tmp_path / "in.wav"), "--out", str(tmp_path / "out.wav"), "-m", str(model)]
    assert gui.main([*arguments, "-f0p", "pm", "--fixed_delay", "0.1"]) == 2
    error = capsys.readouterr().err
    assert re.search(r"give --fixed_delay 0\.\d{3} or more", error) and not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize("value", ["0.01", "6", "nan", "inf"])
def test_a_block_of_no_use_is_refused(value, capsys):
    assert gui.main(["--block", value]) == 2
    assert f"--block is {value}; it must be from 0.03 to 5" in capsys.readouterr().err.replace("6.0", "6")


@pytest.mark.parametrize("value", ["-1.0", "1000.0", "nan", "inf"])
def test_a_delay_of_no_use_is_refused_before_a_model_is_read(value, tmp_path, capsys):
    files = ["--file", str(tmp_path / "in.wav"), "--out", str(tmp_path / "out.wav"), "-m", "missing.pth"]
    assert gui.main([*files, "--fixed_delay", value]) == 2
    assert f"--fixed_delay is {value}; it must be from 0 to 10" in capsys.readouterr().err
