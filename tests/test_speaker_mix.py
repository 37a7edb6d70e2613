"""A map of speaker mixes: its rules, its weights, and their effect over a song."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import spkmix
from inference.conversion import Conversion
from inference.song import Song
from inference.speaker_mix import SpeakerMix
from inference.svc import Svc
from inference.voices import Voices
from modules.console import UserError
from tests.test_svc import HOP, RATE, write_model, write_song
from tests.tiny import tiny_config

WHOLE = [[0, 1, 1, 1]]
CROSSING = {0: [[0, 1, 1, 0]], 1: [[0, 1, 0, 1]]}


def voices(*names: str) -> Voices:
    return Voices({name: row for row, name in enumerate(names)}, RATE, HOP, "mfcc", "left")


def mix_of(*tracks, names: tuple[str, ...] = ("alto", "tenor", "bass")) -> SpeakerMix:
    return SpeakerMix(dict(enumerate(tracks)), voices(*names[: len(tracks)]))


# -- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 2, 7, 100, 12345])
def test_the_weights_of_every_frame_sum_to_one_and_none_is_negative(frames):
    tracks = [[0, 0.2, 3, 0], [0.2, 0.7, 0, 0.1], [0.7, 1, 9, 9]], [[0, 1 / 3, 0.5, 1], [1 / 3, 1, 0, 4]], WHOLE
    weights = mix_of(*tracks).weights(frames)
    assert weights.shape == (frames, 3)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(frames))


def test_a_crossing_is_a_straight_line():
    expected = torch.arange(50) / 50
    torch.testing.assert_close(mix_of(*CROSSING.values()).weights(50), torch.stack([1 - expected, expected], dim=1))


def test_only_the_proportion_of_weights_counts():
    loud = mix_of([[0, 1, 30, 90]], [[0, 1, 10, 10]]).weights(20)
    torch.testing.assert_close(mix_of([[0, 1, 3, 9]], [[0, 1, 1, 1]]).weights(20), loud)


def test_frames_without_any_weight_mix_all_speakers_equally():
    weights = mix_of([[0, 0.5, 0, 0], [0.5, 1, 1, 1]], [[0, 1, 0, 0]]).weights(10)
    assert weights.tolist() == [[0.5, 0.5]] * 5 + [[1, 0]] * 5


def test_speakers_are_known_by_name_as_well_and_rows_without_a_speaker_are_silent():
    scattered = Voices({"alto": 3, "tenor": 1}, RATE, HOP, "mfcc", "left")
    by_name = SpeakerMix({"tenor": WHOLE, "alto": [[0, 1, 1, 0]]}, scattered).weights(10)
    assert torch.equal(by_name, SpeakerMix({3: [[0, 1, 1, 0]], "1": WHOLE}, scattered).weights(10))
    assert not by_name[:, [0, 2]].any()
    assert not SpeakerMix({1: [[0, 1, 0, 0]], 3: [[0, 1, 0, 0]]}, scattered).weights(4)[:, [0, 2]].any()


def test_times_that_meet_but_for_rounding_meet():
    third = [[0, 0.1 + 0.2, 1, 0], [0.3, 0.9999999, 0, 1]]
    torch.testing.assert_close(
        mix_of(third, WHOLE).weights(1000), mix_of([[0, 0.3, 1, 0], [0.3, 1, 0, 1]], WHOLE).weights(1000)
    )


def test_a_segment_shorter_than_a_frame_is_passed_over():
    short = [[0, 0.5, 1, 1], [0.5, 0.5001, 0, 0], [0.5001, 1, 1, 1]]
    assert mix_of(short, [[0, 1, 0, 0]]).weights(10).tolist() == [[1, 0]] * 10


def test_pieces_get_consecutive_frames_and_each_slice_adds_one_for_rounding():
    mix = mix_of(*CROSSING.values())
    pieces = list(mix.piece_weights([[3, 4], [2], [5]]))
    assert [[len(piece) for piece in part] for part in pieces] == [[3, 4], [2], [5]]
    joined = torch.cat([piece for part in pieces for piece in part])
    assert torch.equal(joined, mix.weights(3 + 4 + 2 + 5 + 3)[:14])


# -- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("track", "words"),
    [
        ([], r"track 1 is \[\]; it must be a list of segments"),
        ("loud", "track 1 is 'loud'"),
        (3, "track 1 is 3"),
        ([[0, 1, 1]], r"track 1, segment 1 is \[0, 1, 1\]; it must be four numbers"),
        ([[0, 1, 1, "a"]], "track 1, segment 1.*four numbers"),
        ([[0, 1, 1, float("nan")]], "track 1, segment 1.*four numbers"),
        ([0, 1, 1, 1], "track 1, segment 1 is 0; it must be four numbers"),
        ([[0.1, 1, 1, 1]], "track 1, segment 1 starts at 0.1, but the song begins at 0"),
        ([[0, 0.5, 1, 1], [0.6, 1, 1, 1]], "track 1, segment 2 starts at 0.6, but the one before ends at 0.5"),
        ([[0, 0.5, 1, 1], [0.4, 1, 1, 1]], "track 1, segment 2 starts at 0.4, but the one before ends at 0.5"),
        ([[0, 0, 1, 1], [0, 1, 1, 1]], "track 1, segment 1 goes from 0 to 0"),
        ([[0, 0.5, 1, 1], [0.5, 0.2, 1, 1]], "track 1, segment 2 goes from 0.5 to 0.2"),
        ([[0, 2, 1, 1]], "track 1, segment 1 goes from 0 to 2"),
        ([[0, 0.5, 1, 1], [0.5, 0.9, 1, 1]], "track 1 ends at 0.9; its last segment must end at 1"),
        ([[0, 0.5, 1, 1], [0.5, 1, 1, -0.2]], "track 1, segment 2 has the weight -0.2"),
    ],
)
def test_a_broken_rule_names_track_and_segment(track, words):
    with pytest.raises(UserError, match=words):
        mix_of(WHOLE, track)


def test_every_speaker_of_the_model_needs_a_track():
    with pytest.raises(UserError, match=r"no track of tenor, bass; .* 1: \[\[0, 1, 0, 0\]\]"):
        SpeakerMix({0: WHOLE}, voices("alto", "tenor", "bass"))


def test_a_track_of_an_unknown_speaker_lists_the_known():
    with pytest.raises(UserError, match="no speaker '2'; it has: .*alto"):
        SpeakerMix({0: WHOLE, 1: WHOLE, 2: WHOLE}, voices("alto", "tenor"))


def test_two_tracks_of_one_speaker_are_refused():
    with pytest.raises(UserError, match="two tracks of 'alto'"):
        SpeakerMix({0: WHOLE, "alto": WHOLE}, voices("alto"))


@pytest.mark.parametrize("no_map", [None, [WHOLE, WHOLE], "alto"])
def test_what_is_no_map_is_refused(no_map):
    with pytest.raises(UserError, match="spk_mix_map must map speakers"):
        SpeakerMix(no_map, voices("alto"))


def test_the_shipped_map_is_valid_and_has_two_speakers():
    weights = SpeakerMix(spkmix.spk_mix_map, voices("alto", "tenor")).weights(100)
    assert weights[0].tolist() == [1, 0]
    assert weights[-1].tolist() == [0, 1]
    assert (weights[1:, 1] >= weights[:-1, 1]).all()


# -- songs ------------------------------------------------------------------------------------------------------------

LOW, HIGH = 500, 4000  # Hz, one for each voice of the constructed model


@pytest.fixture(scope="module")
def svc(tmp_path_factory) -> Svc:
    """A model whose voices are two tones: alto is the low one, tenor the high one."""
    svc = Svc(*write_model(tmp_path_factory.mktemp("model")), "cpu")
    rows = torch.zeros_like(svc.synthesizer.emb_g.weight)
    rows[0, 0] = rows[1, 1] = 1
    svc.synthesizer.emb_g.weight.data = rows

    def decode(z, f0, g, generator=None, **options):
        amplitude = g.expand(-1, -1, z.shape[2]).repeat_interleave(HOP, dim=2)
        time = torch.arange(amplitude.shape[2]) / RATE
        low, high = (torch.sin(2 * torch.pi * hertz * time) for hertz in (LOW, HIGH))
        return (0.5 * (amplitude[:, :1] * low + amplitude[:, 1:2] * high)).float()

    svc.synthesizer.dec.decode = decode
    return svc


def share_of_the_high_voice(audio: np.ndarray, step: float = 0.1) -> np.ndarray:
    """Share of the high tone in both amplitudes, every ``step`` seconds."""
    blocks = audio[: len(audio) // int(step * RATE) * int(step * RATE)].reshape(-1, int(step * RATE))
    time = np.arange(blocks.shape[1]) / RATE
    low, high = (np.abs(blocks @ np.exp(2j * np.pi * hertz * time)) for hertz in (LOW, HIGH))
    return high / np.maximum(low + high, 1e-9)


@pytest.mark.parametrize("rate", [44100, 16000])
@pytest.mark.parametrize("cuts", [{}, {"clip_seconds": 1.0, "lg_num": 0.3}, {"clip_seconds": 0.7}])
def test_a_song_goes_gradually_from_one_voice_to_the_other(svc, tmp_path, cuts, rate):
    seconds, pad = 6.0, 0.05
    song = write_song(tmp_path / "song.wav", seconds, rate)
    converted = svc.slice_inference(song, CROSSING, use_spk_mix=True, pad_seconds=pad, **cuts)
    shares = share_of_the_high_voice(converted)
    time = np.arange(len(shares)) * 0.1
    # Where two pieces overlap, each has the tones at a phase of its own, and they cancel here and there.
    clip, fade = cuts.get("clip_seconds", 2 * seconds), cuts.get("lg_num", 0)
    clear = (time % clip < clip - fade - 0.1) | (fade == 0)
    shares, expected = shares[clear], ((time + 0.05) / seconds)[clear]
    assert len(converted) == int(seconds * RATE)
    assert np.abs(shares - expected).max() < 0.06
    assert np.diff(shares).min() > -0.03  # at a joint the mix goes back by the padding
    if not cuts:
        assert np.diff(shares).min() > 0


def test_the_mix_goes_on_through_silence(svc, tmp_path):
    time = np.arange(24 * 8000) / 8000
    soundfile.write(tmp_path / "song.wav", 0.3 * np.sin(1200 * time) * ((time < 6) | (time > 18)), 8000)
    assert [chunk.is_silence for chunk in Song(tmp_path / "song.wav").chunks()].count(True) == 1
    shares = share_of_the_high_voice(svc.slice_inference(tmp_path / "song.wav", CROSSING, use_spk_mix=True))
    assert shares[10] == pytest.approx(1 / 24, abs=0.05)
    assert shares[-10] == pytest.approx(23 / 24, abs=0.05)


@pytest.mark.parametrize("rate", [44100, 48000, 16000, 11025])
@pytest.mark.parametrize("settings", [{}, {"clip_seconds": 0.4, "lg_num": 0.1}, {"pad_seconds": 0}])
def test_every_piece_gets_as_many_weights_as_it_has_frames(svc, tmp_path, monkeypatch, rate, settings):
    counts = []

    def convert(wav, conversion, mix, **options):
        counts.append((len(wav) // HOP, len(mix)))
        return wav

    monkeypatch.setattr(svc, "convert_wav", convert)
    for seconds in (0.01, 1.3):
        song = write_song(tmp_path / "song.wav", seconds, rate)
        svc.slice_inference(song, CROSSING, use_spk_mix=True, **settings)
    assert len(counts) >= 2
    assert all(frames == weights for frames, weights in counts)


def test_a_mix_that_is_one_speaker_all_the_time_is_that_speaker(tmp_path):
    svc = Svc(*write_model(tmp_path), "cpu")
    song = write_song(tmp_path / "song.wav", 0.5)
    alone = {0: [[0, 1, 0, 0]], 1: WHOLE}
    np.testing.assert_allclose(
        svc.slice_inference(song, alone, use_spk_mix=True), svc.slice_inference(song, "tenor"), atol=1e-5
    )


def test_a_model_of_one_speaker_takes_a_map_of_one(tmp_path):
    config = tiny_config()
    config.model.ssl_dim, config.spk = 72, {"solo": 0}
    svc = Svc(*write_model(tmp_path, config), "cpu")
    song = write_song(tmp_path / "song.wav", 0.5)
    np.testing.assert_allclose(
        svc.slice_inference(song, {0: [[0, 1, 0.3, 2]]}, use_spk_mix=True), svc.slice_inference(song, "solo"), atol=1e-5
    )


def test_infer_takes_the_columns_of_a_matrix_from_a_frame_on(svc, tmp_path):
    song: Path = write_song(tmp_path / "song.wav", 0.5)
    frames = int(0.5 * RATE) // HOP
    matrix = torch.zeros(2, 10 + frames)
    matrix[0, :10] = matrix[1, 10:] = 1
    audio, _, count = svc.infer(matrix, 0, song, frame=10, spk_mix=True, cluster_infer_ratio=0.5)
    assert count == frames
    assert share_of_the_high_voice(audio.numpy()).min() > 0.99


def test_a_conversion_checks_its_map_before_the_song(svc, tmp_path):
    song = Song(write_song(tmp_path / "song.wav", 0.5))
    with pytest.raises(UserError, match="no track of tenor"):
        next(svc.convert(song, Conversion({0: WHOLE}, use_spk_mix=True)))
