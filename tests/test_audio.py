"""Reading, writing, resampling and measuring audio, against librosa, torchaudio and closed forms."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import librosa
import numpy as np
import pytest
import soundfile
import torch

from modules.audio.files import (
    BLOCK,
    _resampler,
    open_audio,
    read_audio,
    read_blocks,
    resample,
    sinc_resample,
    to_pcm16,
    write_audio,
)
from modules.audio.loudness import Levels, frame_rms, match_envelope, measure_levels, random_gain, volume
from modules.audio.torchaudio_guard import import_torchaudio
from modules.console import UserError
from tests.bounded import bounded

RNG = np.random.default_rng(7)


def noise(samples: int, scale: float = 0.2) -> np.ndarray:
    return RNG.normal(0, scale, samples).astype(np.float32)


def tone(seconds: float, rate: int, hz: float = 440.0) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate).astype(np.float32) / 2


# -- files ------------------------------------------------------------------------------------------------------------


def test_sixteen_bit_material_survives_a_read_and_a_write_unchanged(tmp_path):
    samples = np.array([-32768, -32767, -1, 0, 1, 12345, 32766, 32767], np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 16000)
    audio, rate = read_audio(tmp_path / "a.wav")
    write_audio(tmp_path / "b.wav", audio, rate)
    again, _ = soundfile.read(tmp_path / "b.wav", dtype="int16")
    np.testing.assert_array_equal(again, samples)


def test_values_beyond_full_scale_are_clipped_and_never_wrap():
    loud = np.array([-7.0, -1.0, 1.0, 1.00002, 3.0])
    np.testing.assert_array_equal(to_pcm16(loud), [-32768, -32768, 32767, 32767, 32767])


def test_channels_are_averaged_and_any_rate_and_depth_reads(tmp_path):
    left, right = noise(9600), noise(9600)
    soundfile.write(tmp_path / "名 前 (1).wav", np.stack((left, right), 1), 96000, subtype="FLOAT")
    audio, rate = read_audio(tmp_path / "名 前 (1).wav")
    assert rate == 96000 and audio.dtype == np.float32
    np.testing.assert_allclose(audio, (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_what_is_written_in_any_format_reads_back_as_the_same_sound(tmp_path, suffix):
    rate = 44100
    audio = tone(1.0, rate)
    write_audio(tmp_path / f"a.{suffix}", audio, rate)
    again, found = read_audio(tmp_path / f"a.{suffix}")
    assert found == rate and abs(len(again) - len(audio)) < 3000
    assert np.corrcoef(again[4000:40000], audio[4000:40000])[0, 1] > 0.99


def test_the_format_can_be_named_whatever_the_suffix(tmp_path):
    write_audio(tmp_path / "a.part", tone(0.1, 16000), 16000, format="flac")
    assert soundfile.info(tmp_path / "a.part").format == "FLAC"


def test_minutes_of_vorbis_are_written(tmp_path):
    write_audio(tmp_path / "long.ogg", np.zeros(8000 * 400, np.float32), 8000)
    assert soundfile.info(tmp_path / "long.ogg").frames == 8000 * 400


def test_reading_at_another_rate_resamples(tmp_path):
    write_audio(tmp_path / "a.wav", tone(0.5, 48000), 48000)
    audio, rate = read_audio(tmp_path / "a.wav", 16000)
    assert rate == 16000 and len(audio) == 8000
    np.testing.assert_allclose(audio[200:-200], tone(0.5, 16000)[200:-200], atol=2e-3)


def bad_files(folder):
    (folder / "text.wav").write_text("this is no sound", encoding="utf-8")
    (folder / "empty.wav").write_bytes(b"")
    soundfile.write(folder / "no_samples.wav", np.zeros(0, np.float32), 16000)
    broken = noise(1000)
    broken[500] = np.nan
    soundfile.write(folder / "nan.wav", broken, 16000, subtype="FLOAT")
    return ["text.wav", "empty.wav", "no_samples.wav", "nan.wav", "missing.wav"]


def test_files_that_cannot_be_used_are_named_in_one_sentence(tmp_path):
    for name in [*bad_files(tmp_path), ""]:
        with pytest.raises(UserError) as caught:
            read_audio(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_a_failed_write_leaves_the_former_file_and_nothing_else(tmp_path):
    write_audio(tmp_path / "a.wav", tone(0.1, 16000), 16000)
    before = (tmp_path / "a.wav").read_bytes()
    with pytest.raises(UserError, match=r"a\.wav"):
        write_audio(tmp_path / "a.wav", tone(0.1, 16000), -1)
    assert (tmp_path / "a.wav").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_unknown_formats_and_unwritable_places_are_sentences(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="xyz"):
        write_audio(tmp_path / "a.xyz", tone(0.1, 16000), 16000)
    with pytest.raises(UserError, match=r"a\.wav cannot be written: .*file is a file, and a folder is needed there"):
        write_audio(tmp_path / "file" / "a.wav", tone(0.1, 16000), 16000)


@pytest.mark.parametrize(("free", "words"), [(0, "the disk is full"), (1 << 30, "System error")])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_a_full_disk_is_reported(tmp_path, monkeypatch, no_room, suffix, free, words):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(UserError, match=rf"a\.{suffix} cannot be written: {words}$"), no_room():
        write_audio(tmp_path / f"a.{suffix}", noise(44100), 44100)
    assert list(tmp_path.iterdir()) == []


def test_a_file_can_be_read_in_pieces(tmp_path):
    write_audio(tmp_path / "a.flac", tone(0.5, 16000), 16000)
    with open_audio(tmp_path / "a.flac") as file:
        file.seek(4000)
        np.testing.assert_allclose(file.read(1000), tone(0.5, 16000)[4000:5000], atol=1e-4)


# -- sampling rates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "target"), [(44100, 16000), (48000, 44100), (22050, 44100), (96000, 44100)])
def test_resample_is_librosas_soxr_hq(source, target):
    audio = noise(5003)
    expected = librosa.resample(audio, orig_sr=source, target_sr=target, res_type="soxr_hq")
    np.testing.assert_allclose(resample(audio, source, target), expected[: -(-5003 * target // source)], atol=1e-6)


@pytest.mark.parametrize("width", [6, 128])
@pytest.mark.parametrize(("source", "target"), [(44100, 16000), (16000, 44100), (48000, 44100), (44100, 37100)])
def test_sinc_resample_is_torchaudios_class(source, target, width):
    audio = torch.from_numpy(noise(2 * 3001)).view(2, 3001)
    expected = import_torchaudio().transforms.Resample(source, target, lowpass_filter_width=width)(audio)
    torch.testing.assert_close(sinc_resample(audio, source, target, width), expected, atol=1e-7, rtol=0)


def test_resampling_to_the_same_rate_changes_nothing():
    audio = noise(100)
    assert resample(audio, 16000, 16000) is audio
    np.testing.assert_array_equal(sinc_resample(torch.from_numpy(audio), 44100, 44100).numpy(), audio)


def test_a_filter_cached_during_inference_works_in_training():
    _resampler.cache_clear()
    with torch.inference_mode():
        sinc_resample(torch.ones(100), 3, 2)
    audio = torch.ones(100, requires_grad=True)
    sinc_resample(audio, 3, 2).sum().backward()
    assert audio.grad.isfinite().all()


@pytest.mark.parametrize(("source", "target"), [(44099, 16000), (16000, 44099), (44100, 44101)])
def test_rates_without_a_common_divisor_are_resampled_without_a_giant_filter(source, target):
    sound = torch.from_numpy(np.stack((tone(0.2, source), tone(0.2, source, 700))))
    resampled = sinc_resample(sound, source, target)
    assert resampled.shape == (2, -(-sound.shape[1] * target // source)) and resampled.dtype == torch.float32
    for row, hz in zip(resampled.numpy(), (440, 700), strict=True):
        np.testing.assert_allclose(row[200:3000], tone(0.2, target, hz)[200:3000], atol=2e-3)


# -- loudness ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frame", "hop"), [(2048, 512), (3528, 882), (1000, 320), (882, 882), (601, 200)])
def test_frame_rms_is_librosas_bit_for_bit(frame, hop):
    audio = noise(44100)
    expected = librosa.feature.rms(y=audio, frame_length=frame, hop_length=hop)[0]
    np.testing.assert_array_equal(frame_rms(audio, frame, hop), expected)


def test_frame_rms_of_pieces_equals_one_pass():
    audio = noise(30000)
    pieces = np.split(audio, [1, 500, 501, 9000, 20000])
    np.testing.assert_array_equal(frame_rms(iter(pieces), 2048, 512), frame_rms(audio, 2048, 512))


def test_volume_of_known_signals():
    step = np.zeros(4096, np.float32)
    step[1024:2048] = 0.5
    half = 0.353553
    np.testing.assert_allclose(volume(step, 512), [0, 0, half, 0.5, half, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(volume(torch.full((2048,), 0.25), 512), [0.25] * 4)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (511, 0), (512, 1), (1000, 1), (1024, 2), (102400, 200)])
def test_volume_has_a_frame_for_each_whole_hop(samples, frames):
    assert volume(noise(samples), 512).shape == (frames,)


@pytest.mark.parametrize(("share", "level"), [(0, 0.1), (0.5, 0.2), (1, 0.4)])
def test_match_envelope_keeps_a_share_of_the_loudness(share, level):
    source, output = np.full(88200, 0.1, np.float32), torch.full((88200,), 0.4)
    np.testing.assert_allclose(match_envelope(source, 44100, output, 44100, share)[30000:60000], level, rtol=1e-4)


@pytest.mark.parametrize("peak", [0.0, 0.01, 0.5, 0.99])
def test_a_random_gain_is_even_in_its_logarithm_up_to_tenfold_and_full_scale(peak):
    audio, generator = torch.tensor([0.0, -peak, peak / 2]), torch.Generator().manual_seed(1)
    powers = np.log10([random_gain(audio, generator) for _ in range(4000)])
    highest = min(1, np.log10(1 / (peak + 1e-5)))
    assert -1 <= powers.min() and powers.max() <= highest and 10 ** powers.max() * peak <= 1
    counts, _ = np.histogram(powers, bins=8, range=(-1, highest))
    assert counts.sum() == 4000 and (np.abs(counts - 500) < 100).all()


@pytest.mark.parametrize(("above", "frames", "used"), [(0.006, 200, False), (0.004, 2, False), (0.004, 3, True)])
def test_the_level_above_rumble_is_used_if_it_is_6_db_lower_in_more_than_a_hundredth(above, frames, used):
    levels = Levels(np.full(200, 0.02), np.where(np.arange(200) < frames, above, 0.02))
    assert (levels.curve(limit=0.01) is levels.above_rumble) == used


def test_an_offset_is_40_db_lower_above_rumble_from_the_first_frame_on():
    levels = measure_levels(np.full(44100, 0.5, np.float32), 44100, 2048, 512)
    assert levels.rms[10] == pytest.approx(0.5)
    assert levels.above_rumble.max() < 0.5 * 10 ** (-40 / 20) * 1.001


def test_match_envelope_of_silence_is_finite():
    silent = torch.zeros(44100)
    for share in (0, 0.3):
        assert torch.isfinite(match_envelope(silent, 44100, torch.from_numpy(noise(44100)), 44100, share)).all()
        assert torch.isfinite(match_envelope(noise(44100), 44100, silent, 44100, share)).all()


def test_handling_files_needs_no_torch():
    code = "import sys, preparation.resampling, preparation.cutting, preparation.data_split, preparation.configs\n"
    code += "assert not {'torch', 'librosa'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_many_channels_take_no_more_memory_at_once_than_one(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((3000, 1000), np.float32), 44100, subtype="PCM_U8")
    with open_audio(tmp_path / "a.wav") as file:
        blocks = list(read_blocks(file))
    assert sum(map(len, blocks)) == 3000 and max(block.size for block in blocks) <= BLOCK
    soundfile.write(tmp_path / "b.wav", np.zeros((3, 1000), np.float32), 44100, subtype="PCM_U8")
    assert bounded(read_audio, tmp_path / "b.wav") == ""


@pytest.mark.parametrize("kind", ["wav", "w64", "rf64", "aiff", "au", "caf"])
def test_a_header_that_promises_petabytes_takes_no_memory(tmp_path, kind):
    """Any field: every four and eight bytes of the header are set to the highest value."""
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, np.full(3000, 0.1), 22050, format=kind.upper())
    whole = path.read_bytes()
    for at in range(0, min(len(whole) - 6000, 200), 4):
        for field in (b"\xff" * 4, b"\xf0\xff\xff\x7f", b"\x7f\xff\xff\xf0", b"\x7f" + b"\xff" * 7):
            path.write_bytes(whole[:at] + field + whole[at + len(field) :])
            try:
                audio, _ = read_audio(path)
                assert len(audio) <= len(whole)
            except UserError as error:
                assert str(path) in str(error)
