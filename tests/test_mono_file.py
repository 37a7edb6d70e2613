"""Audio files as corrected mono: channels, DC offset, full scale, and missing ends."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import soundfile

from inference.song import Song
from modules.audio.files import read_audio
from modules.audio.mono_file import MonoFile
from modules.console import UserError

RATE = 22050


@pytest.fixture(autouse=True)
def every_line(caplog):
    caplog.set_level("INFO", "svc")


def phrases(*parts: float, level: float = 0.3) -> np.ndarray:
    """Concatenate parts in seconds: positive ones are a 220 Hz tone, negative ones silence."""
    tones = [np.sin(2 * np.pi * 220 / RATE * np.arange(int(abs(part) * RATE))) * (part > 0) for part in parts]
    return (level * np.concatenate(tones)).astype(np.float32)


def put(path, audio, **how):
    soundfile.write(path, audio, RATE, subtype=how.pop("subtype", "FLOAT"), **how)
    return path


def measured(path) -> MonoFile:
    file = MonoFile(path)
    file.measure(2048, 512)
    return file


# -- channels ---------------------------------------------------------------------------------------------------------


def test_the_mean_of_the_channels_is_used_where_it_is_right(tmp_path, caplog):
    left, right = phrases(1), phrases(1, level=0.1)
    file = measured(put(tmp_path / "a.wav", np.stack((left, right), 1)))
    np.testing.assert_array_equal(file.read(), np.stack((left, right), 1).mean(axis=1))
    one_sided = measured(put(tmp_path / "b.wav", np.stack((left, 0 * left), 1)))
    np.testing.assert_allclose(one_sided.read(), left / 2)
    assert not caplog.messages


@pytest.mark.parametrize("case", ["cancel", "nearly cancel", "centre of six", "cancel beside an offset"])
def test_the_loudest_channel_is_used_where_the_mean_is_far_fainter(tmp_path, caplog, case):
    voice, silence = phrases(1), np.zeros(RATE, np.float32)
    channels = {
        "cancel": (voice * 0.9, -voice),
        "nearly cancel": (-0.9 * voice, voice),
        "centre of six": (silence, voice, silence, silence, silence, silence),
        "cancel beside an offset": (voice * 0.9 + 0.1, -voice + 0.1),
    }[case]
    read = measured(put(tmp_path / "a.wav", np.stack(channels, 1))).read()
    np.testing.assert_allclose(np.abs(read), np.abs(voice), atol=1e-3)
    assert "channel 2 is used" in caplog.text


# -- offset, hum, full scale ------------------------------------------------------------------------------------------


def test_a_dc_offset_is_removed_and_audio_without_one_stays_unchanged(tmp_path, caplog):
    clean = phrases(1, -1, 1)
    np.testing.assert_array_equal(measured(put(tmp_path / "a.wav", clean)).read(), clean)
    assert not caplog.messages
    np.testing.assert_allclose(measured(put(tmp_path / "b.wav", clean + 0.03)).read(), clean, atol=1e-4)
    assert "DC offset of 3.0 %" in caplog.text


@pytest.mark.parametrize("rate", [RATE, 8000, 96000])
@pytest.mark.parametrize("rumble", ["offset", "drift", "hum of 50 Hz", "hum of 60 Hz"])
def test_pauses_are_found_in_spite_of_an_offset_or_hum(tmp_path, rumble, rate):
    time = np.arange(int(22 * rate)) / rate
    clean = 0.3 * np.sin(2 * np.pi * 220 * time) * ((time < 6) | (time > 16))
    added = {
        "offset": 0.03 + 0 * time,
        "drift": 0.02 + 0.002 * time,
        "hum of 50 Hz": 0.03 * np.sin(2 * np.pi * 50 * time),
        "hum of 60 Hz": 0.03 * np.sin(2 * np.pi * 60 * time),
    }[rumble]
    soundfile.write(tmp_path / "a.wav", clean, rate, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", clean + added, rate, subtype="FLOAT")
    wanted, found = Song(tmp_path / "a.wav").chunks(), Song(tmp_path / "b.wav").chunks()
    assert [chunk.is_silence for chunk in found] == [chunk.is_silence for chunk in wanted]
    assert any(chunk.is_silence for chunk in found)
    for one, other in zip(wanted, found, strict=True):
        if one.is_silence:
            assert 6 * rate <= other.start and other.end <= 16 * rate


def test_a_song_above_full_scale_is_lowered_as_a_whole(tmp_path, caplog):
    loud = phrases(1, level=3) * np.linspace(0, 1, RATE, dtype=np.float32)
    read = measured(put(tmp_path / "a.wav", loud)).read()
    np.testing.assert_allclose(read, loud * (0.98 / np.abs(loud).max()), atol=1e-6)
    assert "9.5 dB above full scale" in caplog.text


def test_ranges_are_read_in_order_with_what_lies_between_left_out(tmp_path):
    audio = np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32)
    parts = list(measured(put(tmp_path / "a.wav", audio)).parts([(10, 20), (20, 500), (60000, 60001)]))
    for part, (start, end) in zip(parts, [(10, 20), (20, 500), (60000, 60001)], strict=True):
        np.testing.assert_array_equal(part, audio[start:end])


# -- lengths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["wav", "aiff", "w64", "rf64", "au", "mp3", "ogg", "opus"])
def test_a_truncated_file_is_read_to_its_end_and_both_lengths_are_reported(tmp_path, caplog, suffix):
    audio = np.random.default_rng(0).normal(0, 0.1, (6, 48000)).astype(np.float32)
    whole, half = tmp_path / f"whole.{suffix}", tmp_path / f"half.{suffix}"
    how = {"opus": {"format": "OGG", "subtype": "OPUS"}, "rf64": {"format": "RF64"}}.get(suffix, {})
    with soundfile.SoundFile(whole, "w", 48000, 1, **how) as file:
        for second in audio:
            file.write(second)
    assert measured(whole).cut_off is None and not caplog.messages
    data = whole.read_bytes()
    half.write_bytes(data[: len(data) // 2])
    file = measured(half)
    assert 1.5 < file.seconds < 4 and len(file.read()) == file.samples
    assert f"half.{suffix} is cut off" in file.cut_off and f"{file.seconds:.1f} s are there" in file.cut_off
    assert ("gives 6.0 s" in file.cut_off) == (suffix not in ("ogg", "opus"))
    assert file.cut_off in caplog.messages


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF - 36])
def test_wav_from_a_pipe_is_read_to_its_end(tmp_path, size):
    path = put(tmp_path / "a.wav", phrases(1), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", size)
    path.write_bytes(data)
    file = measured(path)
    assert file.cut_off is None and file.samples == len(file.read()) == len(read_audio(path)[0]) == RATE


def test_flac_from_a_pipe_is_read_to_its_end(tmp_path):
    path = put(tmp_path / "a.flac", phrases(3), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples
    data[22:26] = bytes(4)
    path.write_bytes(data)
    file = measured(path)
    assert file.cut_off is None and file.samples == len(file.read()) == len(read_audio(path)[0]) == 3 * RATE


@pytest.mark.parametrize("read", [measured, read_audio])
def test_a_header_without_length_or_with_an_impossible_rate_is_refused(tmp_path, read):
    path = put(tmp_path / "a.wav", phrases(1), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    path.write_bytes(data[:place] + bytes(4) + data[place + 4 :])
    with pytest.raises(UserError, match=r"a\.wav holds 44144 bytes, but its header gives a length of 0 samples.*pipe"):
        read(path)
    for rate in (1, 10, 2**31 - 1):
        path.write_bytes(data[:24] + struct.pack("<I", rate) + data[28:])
        with pytest.raises(UserError, match=f"a rate of {rate} Hz"):
            read(path)
