"""doctor.py --data: the measures of the recordings, what stands out, and the picture."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import doctor
from checkup import sound
from checkup.picture import refuse_target
from checkup.project import every_nth
from modules.data.features import ClipFiles
from tests.doctor_project import copy_project, files_in


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    return copy_project(tmp_path / "project", monkeypatch)


def write_sound(path: Path, audio: np.ndarray) -> Path:
    soundfile.write(path, audio, 16000, subtype="FLOAT")
    return path


def test_the_measures_of_known_signals(tmp_path):
    time = np.arange(32000) / 16000
    tone = np.where(time < 1, np.sin(2 * np.pi * 200 * time), 0.001 * np.sin(2 * np.pi * 200 * time))
    plain = sound.measure_sound(write_sound(tmp_path / "a.wav", 0.5 * tone))
    assert plain.seconds == 2 and plain.clipped == 0 and plain.silence == pytest.approx(0.5)
    assert plain.level == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.1)
    assert plain.floor == pytest.approx(plain.level - 60, abs=0.1)
    clipped = sound.measure_sound(write_sound(tmp_path / "b.wav", (2 * tone).clip(-1, 1)))
    assert clipped.clipped == pytest.approx(0.5 * 2 / 3, abs=0.05), "2 sin x exceeds 1 for two thirds of the time"
    assert sound.measure_sound(write_sound(tmp_path / "c.wav", 0.5 * tone + 0.05)).offset == pytest.approx(
        0.05, abs=1e-3
    )


def test_data_names_what_stands_out_and_draws_one_picture(project, capsys):
    audio, rate = soundfile.read("dataset_raw/alto/0.wav")
    soundfile.write("dataset_raw/alto/0.wav", (8 * audio).clip(-1, 1), rate)
    before = set(files_in(project))
    assert doctor.main(["--data", "report/data.png", "--json"]) == 1, "the recording is newer than its clip"
    findings = json.loads(capsys.readouterr().out)["sections"]["sound"]
    texts = [finding["what"] for finding in findings]
    assert any("alto: 1 file (dataset_raw/alto/0.wav) clipped" in text for text in texts)
    assert not any("tenor: 1 file" in text and "clipped" in text for text in texts)
    assert any(text.startswith("tenor: 0.0 minutes in 4 files") or "tenor: 0.1 minutes in 4" in text for text in texts)
    assert sorted(set(files_in(project)) - before) == [str(project / "report"), str(project / "report/data.png")]
    assert Path("report/data.png").read_bytes().startswith(b"\x89PNG")
    refuse_target(Path("report/data.png"))  # a picture may be replaced
    f0 = ClipFiles(project / "dataset/44k/tenor/1.wav").read_f0()[0]
    assert np.median(f0) == pytest.approx(200, rel=0.02), "the F0 that the report reads"


def test_data_never_replaces_a_file_that_is_no_png_and_names_a_path_that_cannot_be_written(project, capsys):
    recording = Path("dataset_raw/alto/0.wav")
    Path("own.png").write_bytes(recording.read_bytes())
    Path("folder.png").mkdir()
    before = files_in(project)
    for target, cause in (
        (str(recording), "end in .png"),
        ("own.png", "not overwritten"),
        ("folder.png", "is a folder"),
        ("own.png/data.png", "a folder is needed"),
    ):
        assert doctor.main(["--data", target]) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and target in printed.err and cause in printed.err
    assert files_in(project) == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which not even root can write")
def test_data_in_a_folder_that_takes_no_file_is_wrong_input(project, capsys):
    assert doctor.main(["--data", "/proc/data.png"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and "/proc/data.png cannot be written" in printed.err


def test_samples_are_evenly_spaced():
    assert every_nth(range(10), 5) == [0, 2, 4, 6, 8] and every_nth(range(3), 5) == [0, 1, 2] and every_nth([], 5) == []
