"""F0 as a table: reading, writing and interpolation."""

import numpy as np
import pytest

from inference.f0_curve import MARGIN, F0Log, read_f0_curve
from modules.console import UserError


def read(folder, text):
    path = folder / "f0.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_f0_curve(path)


def test_what_is_written_is_read_again(tmp_path):
    times = 0.3 + np.arange(500) * 512 / 44100
    f0, voiced = np.linspace(80, 900, 500).astype(np.float32), (np.arange(500) // 50 % 2).astype(np.float32)
    log = F0Log()
    log.add(times[:210], 0 * f0[:210] + 77, voiced[:210], times[0])  # the last ten are replaced, the first too
    log.add(times[195:], f0[195:], voiced[195:], times[200])
    f0[:200] = 77
    log.write(tmp_path / "f0.csv")
    again = read_f0_curve(tmp_path / "f0.csv").at(times)
    np.testing.assert_allclose(again[0], f0, rtol=1e-4)
    np.testing.assert_array_equal(again[1], voiced)


def test_between_points_f0_is_linear_in_its_logarithm_and_the_ends_are_extended(tmp_path):
    curve = read(tmp_path, "time,f0\n1,100\n3,400\n")
    f0, voiced = curve.at(np.array([0, 1, 2, 2.5, 3, 9]))
    np.testing.assert_allclose(f0, [100, 100, 200, 200 * 2**0.5, 400, 400], rtol=1e-6)
    assert voiced.all()


def test_the_voicing_of_a_point_lasts_until_the_next(tmp_path):
    curve = read(tmp_path, "time, f0, voiced\r\n0, 100, 1\r\n1, 0, 0\r\n2, 0,\r\n3, 200, 1\r\n")
    f0, voiced = curve.at(np.array([0.9, 1, 1.5, 2.5, 3]))
    assert voiced.tolist() == [1, 0, 0, 0, 1]
    np.testing.assert_allclose(f0[1:4], 100 * 2 ** (np.array([1, 1.5, 2.5]) / 3), rtol=1e-6)


def test_between_pieces_nothing_is_voiced(tmp_path):
    log, ones = F0Log(), np.ones(10)
    log.add(np.arange(10) * 0.01, 200 * ones, ones, 0.0)
    log.add(5 + np.arange(10) * 0.01, 300 * ones, ones, 5.0)
    log.add(5 + np.arange(10) * 0.01, 300 * ones, ones, 5.0)  # again, after memory ran out
    log.write(tmp_path / "f0.csv")
    voiced = read_f0_curve(tmp_path / "f0.csv").at(np.array([0.09, 0.2, 4.9, 5.0]))[1]
    assert voiced.tolist() == [1, 0, 0, 1]


def test_silence_is_unvoiced(tmp_path):
    curve = read(tmp_path, "time,f0\n0,100\n")
    wav = np.ones(20 * 512, np.float32)
    wav[: 12 * 512] = 0
    f0, uv = curve.of_sound(wav, 5.0, 44100, 512)
    assert uv.tolist() == [0] * (12 - MARGIN) + [1] * (8 + MARGIN)
    assert (f0 == 100).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no F0"),
        ("time,f0\n", "holds no F0"),
        ("time,f0\n0,0\n", "holds no F0"),
        ("a,b\n1,2\n", "line 2"),
        ("time,f0\n0,100\n\n1,high\n", "line 4"),
        ("time,f0\n0,100\n1,high\n", "line 3"),
        ("time,f0\n0,100\n0,120\n", "line 3.*after the row before"),
        ("time,f0\n0,-5\n", "line 2.*from 0 to"),
        ("time,f0\nnan,100\n", "line 2"),
        ("time,f0\n0,nan\n", "line 2"),
        ("time,f0,voiced\n0,100,2\n", "voiced 0 or 1"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        read(tmp_path, text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv"):
        read_f0_curve(tmp_path / "none.csv")
