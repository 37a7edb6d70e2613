"""The converter within other programs: sounds in memory, progress, cancelling, threads, shared work, freed memory."""

from __future__ import annotations

import io
import threading

import numpy as np
import pytest
import soundfile
import torch

import inference.svc
from inference.conversion import Conversion
from inference.f0_curve import F0Log, read_f0_curve
from inference.song import Song
from inference.svc import SHORTEST_SEGMENT, Svc, default_segment
from modules.console import UserError
from tests.test_svc import RATE, write_model, write_song
from tests.tiny import tiny_config

PM = {"f0_predictor": "pm"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = tiny_config()
    config.model.ssl_dim = 72
    config.model.upsample_rates, config.model.upsample_kernel_sizes = [8, 8, 2, 2, 2], [16, 16, 4, 4, 4]
    config.model.upsample_initial_channel = 32
    config.f0 = {"alto": [300.0, 420.0, 600.0], "tenor": [90.0, 130.0, 200.0]}
    return write_model(tmp_path_factory.mktemp("model"), config)


@pytest.fixture
def svc(model) -> Svc:
    return Svc(*model, "cpu")


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    return write_song(tmp_path_factory.mktemp("songs") / "song.wav", 8, gaps=(6.5,))


# -- sounds in memory -------------------------------------------------------------------------------------------------


def test_an_array_and_a_file_object_give_the_sound_of_the_file(svc, song):
    wanted = svc.slice_inference(song, "alto", **PM)
    array = soundfile.read(song, dtype="float32")
    np.testing.assert_array_equal(svc.slice_inference(array, "alto", **PM), wanted)
    np.testing.assert_array_equal(svc.slice_inference(io.BytesIO(song.read_bytes()), "alto", **PM), wanted)
    stereo = np.stack([array[0]] * 2, axis=1), array[1]
    np.testing.assert_array_equal(svc.slice_inference(stereo, "alto", **PM), wanted)


@pytest.mark.parametrize(
    ("sound", "words"),
    [
        ((np.zeros((2, 44100)), 44100), "no sound"),
        ((np.zeros(0), 44100), "no sound"),
        ((np.full(44100, np.nan), 44100), "NaN"),
        (io.BytesIO(b"nothing"), "cannot be read"),
    ],
)
def test_what_is_no_sound_is_refused(svc, sound, words):
    with pytest.raises(UserError, match=words):
        svc.slice_inference(sound, "alto")


# -- progress and cancelling ------------------------------------------------------------------------------------------


def test_progress_is_told_in_seconds_of_the_song_after_every_block(svc, song):
    seconds = []
    list(svc.convert(Song(song), Conversion("alto", **PM), on_progress=seconds.append))
    assert seconds == sorted(seconds)
    assert len(seconds) >= 4 and 6 < seconds[-1] <= 8


def test_an_exception_of_the_callback_ends_the_conversion_within_a_block(svc, song):
    def cancel(seconds):
        if seconds > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(svc.convert(Song(song), Conversion("alto", **PM), on_progress=cancel))
    assert len(svc.slice_inference(song, "alto", **PM)) == 8 * RATE


def test_threads_share_a_converter(svc, song, tmp_path):
    songs = {"alto": song, "tenor": write_song(tmp_path / "other.wav", 3)}
    wanted = {name: svc.slice_inference(path, name, **PM) for name, path in songs.items()}
    got = {}
    threads = [
        threading.Thread(target=lambda n=name, p=path: got.setdefault(n, svc.slice_inference(p, n, **PM)))
        for name, path in songs.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in songs:
        np.testing.assert_array_equal(got[name], wanted[name])


@pytest.mark.parametrize("settings", [{}, {"clip_seconds": 2}, {"pad_seconds": 0.011}])
def test_padding_is_not_decoded_and_nothing_else_is_missing(svc, song, monkeypatch, settings):
    decode, decoded = svc.synthesizer.dec.decode, []

    def note(z, *arguments, needed, **options):
        decoded.append((needed.stop - needed.start) / z.shape[2])
        return decode(z, *arguments, needed=needed, **options)

    monkeypatch.setattr(svc.synthesizer.dec, "decode", note)
    quick = svc.slice_inference(song, "alto", **PM, **settings)
    assert max(decoded) < 1 or "pad_seconds" in settings
    convert = svc.convert_wav
    monkeypatch.setattr(
        svc, "convert_wav", lambda *arguments, needed, **options: convert(*arguments, needed=slice(0, 10**6), **options)
    )
    monkeypatch.setattr(svc.synthesizer.dec, "decode", decode)
    np.testing.assert_allclose(quick, svc.slice_inference(song, "alto", **PM, **settings), atol=1e-5)


# -- shared work ------------------------------------------------------------------------------------------------------


def count_calls(svc, monkeypatch):
    calls = {"encoder": 0, "f0": 0}
    encode, predictor = svc.feature_extractor.encoder.features, svc.feature_extractor.predictor("pm", 0.05)

    def features(audio):
        calls["encoder"] += 1
        return encode(audio)

    def f0(audio):
        calls["f0"] += 1
        return predictor(audio)

    f0.weight = None
    monkeypatch.setattr(svc.feature_extractor.encoder, "features", features)
    monkeypatch.setattr(svc.feature_extractor, "predictor", lambda *key: f0)
    return calls


def test_a_song_is_analysed_once_for_all_speakers_and_keys(model, song, monkeypatch):
    svc = Svc(*model, "cpu", keep_units=True)
    calls = count_calls(svc, monkeypatch)
    results = [
        svc.slice_inference(song, name, tran, **PM) for name in ("alto", "tenor", "alto") for tran in (0, 12)
    ]
    pieces = len(svc.piece_seconds(Song(song), Conversion("alto")))
    assert calls == {"encoder": pieces, "f0": pieces}
    np.testing.assert_array_equal(results[0], results[4])
    np.testing.assert_array_equal(results[0], Svc(*model, "cpu").slice_inference(song, "alto", **PM))


def test_a_cache_folder_outlives_the_converter(model, song, tmp_path, monkeypatch):
    first = Svc(*model, "cpu", cache_folder=tmp_path).slice_inference(song, "alto", **PM)
    svc = Svc(*model, "cpu", cache_folder=tmp_path)
    calls = count_calls(svc, monkeypatch)
    np.testing.assert_array_equal(svc.slice_inference(song, "alto", **PM), first)
    assert calls == {"encoder": 0, "f0": 0}
    svc.slice_inference(song, "alto", f0_predictor="harvest")
    assert calls["f0"] > 0 and calls["encoder"] == 0


# -- memory -----------------------------------------------------------------------------------------------------------


def test_a_closed_converter_says_so_and_may_be_closed_again(svc, song):
    svc.close()
    svc.close()
    with pytest.raises(UserError, match="is closed"):
        svc.slice_inference(song, "alto")


@pytest.mark.parametrize(("free", "seconds"), [(None, 60), (100, 60), (2.5, 30), (1, 15), (0.1, 7.5)])
def test_segments_are_shorter_where_little_memory_is_free(free, seconds, monkeypatch):
    monkeypatch.setattr(inference.svc, "free_memory", lambda device: free)
    assert default_segment(torch.device("cpu")) == seconds


def test_when_memory_runs_out_segments_are_halved_and_the_song_goes_on(svc, song, monkeypatch, caplog):
    encoder, encoded = svc.feature_extractor.encoder, []
    features = encoder.features

    def limited(audio):
        if len(audio) > 12 * 16000:
            raise MemoryError
        encoded.append(len(audio))
        return features(audio)

    monkeypatch.setattr(encoder, "features", limited)
    monkeypatch.setattr(encoder, "bounds_memory", False)
    long = np.tile(soundfile.read(song, dtype="float32")[0][: 6 * RATE], 4)
    assert len(svc.slice_inference((long, RATE), "alto", **PM)) == 24 * RATE
    assert 2 * SHORTEST_SEGMENT <= svc.segment <= 7 and len(encoded) >= 4
    levels = [record.levelname for record in caplog.records if "segments are" in record.message]
    assert levels.count("WARNING") == 1


def test_a_piece_that_fits_no_memory_is_an_error(svc, song, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr(svc.synthesizer, "latent", fail)
    with pytest.raises(UserError, match="do not fit into the memory"):
        svc.slice_inference(song, "alto", **PM)


def test_segments_change_only_the_units(model, tmp_path):
    """The encoder of this model normalises over all of its sound, so it always gets the whole."""
    song = write_song(tmp_path / "song.wav", 24)
    whole, cut = (Svc(*model, "cpu", max_segment=seconds).slice_inference(song, "alto", **PM) for seconds in (60, 8))
    np.testing.assert_array_equal(whole, cut)


# -- F0 ---------------------------------------------------------------------------------------------------------------


def test_f0_that_was_written_gives_the_same_song_and_moved_f0_another(svc, song, tmp_path):
    log = F0Log()
    wanted = np.concatenate(list(svc.convert(Song(song), Conversion("alto", **PM), f0_log=log)))
    log.write(tmp_path / "f0.csv")
    curve = read_f0_curve(tmp_path / "f0.csv")
    again = svc.slice_inference(song, "alto", f0_curve=curve)
    assert np.linalg.norm(again - wanted) < 0.01 * np.linalg.norm(wanted)
    assert np.diff(curve.times).min() > 0 and curve.times[-1] < 8.1
    time = np.arange(8 * RATE) / RATE
    glide = 150 + 150 * time / 8
    middle = (curve.times > 1) & (curve.times < 5)
    np.testing.assert_allclose(curve.f0[middle], np.interp(curve.times[middle], time, glide), rtol=0.02)


def test_the_curve_is_applied_in_song_time_and_shifted(svc, song, tmp_path, monkeypatch):
    (tmp_path / "f0.csv").write_text("time,f0\n0,100\n8,400\n")
    got, infer = [], svc.synthesizer.infer

    def note(units, f0, *arguments, **options):
        got.append(f0)
        return infer(units, f0, *arguments, **options)

    monkeypatch.setattr(svc.synthesizer, "infer", note)
    curve = read_f0_curve(tmp_path / "f0.csv")
    svc.slice_inference(song, "alto", 12, f0_curve=curve, clip_seconds=2, pad_seconds=0)
    assert len(got) >= 3
    second = got[1][0]
    assert second[len(second) // 2] == pytest.approx(2 * 100 * 4 ** (3 / 8), rel=0.01)


@pytest.mark.parametrize(("speaker", "shift"), [("alto", 12), ("tenor", -12)])
def test_the_key_is_the_octave_of_the_speaker(svc, song, caplog, speaker, shift):
    caplog.set_level("INFO")
    assert svc.suggest_shift(Song(song), Conversion(speaker, **PM)) == shift
    assert f"key {shift:+d}" in caplog.text and speaker in caplog.text


def test_without_the_speakers_range_no_key_is_chosen(tmp_path, song):
    svc = Svc(*write_model(tmp_path), "cpu")
    with pytest.raises(UserError, match="config.json has no F0 range of alto"):
        svc.suggest_shift(Song(song), Conversion("alto", **PM))
