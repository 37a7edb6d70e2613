"""The converter on tiny networks: lengths, silence, caches, speakers, and what it refuses."""

from __future__ import annotations

import functools
import gc
import itertools
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from inference.conversion import Conversion
from inference.pieces import FADE_SECONDS, lay_out, with_fades
from inference.song import Song
from inference.svc import Svc
from inference.voices import Voices
from modules.config import Config, save_config
from modules.console import UserError
from tests.parity import errors, load
from tests.parity.inference import use_published_placement
from tests.tiny import tiny_config
from vencoder import encoder_key
from vits.synthesizer import Synthesizer

RATE, HOP = 44100, 512


def write_model(folder: Path, config: Config | None = None, change=lambda weights: weights) -> tuple[Path, Path]:
    """Write a generator with random weights and its config, as training does; ``change`` edits the weights."""
    if config is None:
        config = tiny_config()
        config.model.ssl_dim = 72
    weights = change({name: tensor.clone() for name, tensor in _weights(json.dumps(config.to_dict())).items()})
    torch.manual_seed(0)
    torch.save({"model": weights, "iteration": 1, "optimizer": None, "learning_rate": 1e-4}, folder / "G_1.pth")
    save_config(config, folder / "config.json")
    return folder / "G_1.pth", folder / "config.json"


@functools.lru_cache(maxsize=8)
def _weights(config: str) -> dict[str, torch.Tensor]:
    """Random weights, made once for neighbouring tests."""
    torch.manual_seed(0)
    return Synthesizer(Config.from_dict(json.loads(config)).model).state_dict()


def write_song(path: Path, seconds: float, rate: int = RATE, gaps: tuple[float, ...] = (), channels: int = 1) -> Path:
    """Write a glide from 150 to 300 Hz; each gap (seconds from the start) begins a second of silence."""
    time = np.arange(int(seconds * rate)) / rate
    audio = 0.3 * np.sin(2 * np.pi * np.cumsum(150 + 150 * time / seconds) / rate)
    for gap in gaps:
        audio[int(gap * rate) : int((gap + 1) * rate)] = 0
    soundfile.write(path, np.repeat(audio[:, None], channels, 1), rate)
    return path


@pytest.fixture(scope="module")
def svc(tmp_path_factory) -> Svc:
    return Svc(*write_model(tmp_path_factory.mktemp("model")), "cpu")


@pytest.fixture
def unchanged(svc, monkeypatch) -> Svc:
    """A converter whose networks return their input, in whole frames."""
    monkeypatch.setattr(svc, "convert_wav", lambda wav, *_, **__: wav[: len(wav) // HOP * HOP])
    return svc


# -- lengths and positions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [44100, 48000, 32000, 22050, 16000, 11025, 30870])
@pytest.mark.parametrize("cuts", [{}, {"clip_seconds": 0.7}, {"clip_seconds": 0.7, "lg_num": 0.2}])
def test_the_song_keeps_its_length_at_every_rate(unchanged, tmp_path, rate, cuts):
    song = write_song(tmp_path / "song.wav", 2.3, rate)
    converted = unchanged.slice_inference(song, "alto", pad_seconds=0.1, **cuts)
    assert len(converted) == -(-soundfile.info(song).frames * RATE // rate)


@pytest.mark.parametrize("rate", [44100, 32000])
@pytest.mark.parametrize("pad_seconds", [0.5, 0.003, 0])
@pytest.mark.parametrize(("clip", "fade", "retain"), [(0, 0, 0.75), (1.1, 0.3, 0.75), (1, 1, 1), (0.701, 0, 0.75)])
def test_what_the_networks_leave_alone_stays_in_position(unchanged, tmp_path, rate, clip, fade, retain, pad_seconds):
    clicks = np.array([0.45, 1.05, 1.95, 2.6])  # seconds
    audio = 0.02 * np.sin(np.arange(int(3.003 * rate)) / 30)
    audio[(clicks * rate).astype(int)] = 0.9
    soundfile.write(tmp_path / "song.wav", audio, rate)
    cuts = {"clip_seconds": clip, "lg_num": fade, "lgr_num": retain, "pad_seconds": pad_seconds}
    converted = unchanged.slice_inference(tmp_path / "song.wav", "alto", **cuts)
    for expected in (clicks * RATE).astype(int):
        found = expected - 2000 + np.abs(converted[expected - 2000 : expected + 2000]).argmax()
        assert abs(found - expected) <= 1
    if rate == RATE and pad_seconds:  # the stand-in's frames hold their own samples, up to rounding
        np.testing.assert_allclose(converted, audio, atol=1e-4)


@pytest.mark.parametrize("lg_num", [0, 0.2])
def test_joints_have_no_zeros_and_fade(svc, tmp_path, lg_num):
    """Pieces of a constant level, every second one inverted, are joined without a jump."""
    signs = itertools.cycle([1.0, -1.0])
    song = write_song(tmp_path / "song.wav", 3.3)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(svc, "convert_wav", lambda wav, *_, **__: next(signs) * torch.ones(len(wav) // HOP * HOP))
        converted = svc.slice_inference(song, "alto", clip_seconds=0.7, lg_num=lg_num)
    jumps = np.abs(np.diff(converted)) > 0
    assert (np.abs(converted) > 0).mean() > 0.999 and np.abs(np.diff(converted)).max() < 0.01
    assert jumps.sum() >= 4 * 2 * int(FADE_SECONDS * RATE) - 8


def test_silence_between_phrases_is_exact_zeros_of_the_same_length_but_for_the_fades(svc, tmp_path):
    time = np.arange(24 * 8000) / 8000
    audio = 0.3 * np.sin(2 * np.pi * 200 * time) * ((time < 6) | (time > 18))
    soundfile.write(tmp_path / "song.wav", audio, 8000)
    song = Song(tmp_path / "song.wav")
    silent = [chunk for chunk in song.chunks() if chunk.is_silence]
    assert len(silent) == 1
    converted = svc.slice_inference(song.path, "alto")
    start, end = (round(n * RATE / 8000) for n in (silent[0].start, silent[0].end))
    fade = int(FADE_SECONDS * RATE) + 10
    assert len(converted) == 24 * RATE
    assert not converted[start + fade : end - fade].any()
    assert converted[: start // 2].any()


@pytest.mark.parametrize("samples", [1, 100, HOP - 1, HOP, 3000])
@pytest.mark.parametrize("pad_seconds", [0, 0.5])
def test_a_song_of_a_few_samples_is_converted(svc, tmp_path, samples, pad_seconds):
    soundfile.write(tmp_path / "short.wav", np.full(samples, 0.5), RATE)
    converted = svc.slice_inference(tmp_path / "short.wav", "alto", pad_seconds=pad_seconds)
    assert len(converted) == samples
    assert np.isfinite(converted).all()


@pytest.mark.parametrize("seconds", [0.01, 0.2, 8])
def test_a_silent_song_is_refused(svc, tmp_path, seconds):
    soundfile.write(tmp_path / "silent.wav", np.zeros(int(seconds * RATE)), RATE)
    with pytest.raises(UserError, match="silent.wav holds only silence"):
        svc.slice_inference(tmp_path / "silent.wav", "alto")


def test_a_song_below_the_threshold_is_refused_with_its_level_and_a_cure_that_works(svc, tmp_path):
    song = write_song(tmp_path / "song.wav", 1)
    audio, _ = soundfile.read(song)
    soundfile.write(song, audio * 10 ** (-43 / 20), RATE)  # the tone is at -13.5 dB
    with pytest.raises(UserError, match=r"song.wav is -56 dB.*below -40 dB \(slice_db\).*give slice_db=-70"):
        svc.slice_inference(song, "alto")
    assert svc.slice_inference(song, "alto", slice_db=-70).any()


def test_parts_come_one_after_the_other_without_the_whole_song_in_memory(unchanged, tmp_path):
    song = Song(write_song(tmp_path / "song.wav", 30, gaps=(7, 14, 21)))
    parts = [len(part) for part in unchanged.convert(song, Conversion("alto"))]
    assert sum(parts) == 30 * RATE
    assert max(parts) < 15 * RATE


def test_slices_and_joints_are_the_originals(svc, tmp_path, monkeypatch):
    """The fixture's conversion replaces the networks by a known function of the piece."""
    _, ins, outs = load("D_spkmix_slice_inference")
    samples = max((value for value in ins.values() if value.ndim == 1), key=len)
    if samples.dtype != np.int16:
        samples = np.round(samples * 32768).astype(np.int16)
    soundfile.write(tmp_path / "song.wav", samples, 16000, subtype="PCM_16")
    use_published_placement(monkeypatch)
    monkeypatch.setattr(svc, "target_sample", 16000)
    monkeypatch.setattr(svc, "convert_wav", lambda wav, *_, **__: wav + 0.001 * torch.arange(len(wav)) / len(wav))
    names = [name for name in outs if name.startswith("audio_len_abs") and "_16000_" in name]
    assert names
    for name in names:
        clip, lg, lgr = map(float, name.split("_16000_")[1].split("_"))
        song = svc.slice_inference(tmp_path / "song.wav", "alto", clip_seconds=clip, lg_num=lg, lgr_num=lgr)
        np.testing.assert_allclose([len(song), np.abs(song).sum()], outs[name], rtol=1e-5)
        if (every := name.replace("len_abs", "every97")) in outs:
            assert errors(song[::97], outs[every])[1] < 1e-3


def test_stereo_is_converted_as_the_mean_of_its_channels(svc, tmp_path):
    mono = write_song(tmp_path / "mono.wav", 1.0)
    stereo = write_song(tmp_path / "stereo.wav", 1.0, channels=2)
    np.testing.assert_array_equal(svc.slice_inference(mono, "alto"), svc.slice_inference(stereo, "alto"))


# -- what the settings do ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def song(tmp_path_factory) -> Path:
    return write_song(tmp_path_factory.mktemp("songs") / "song.wav", 1.5)


def test_the_seed_determines_all_random_numbers(svc, song):
    first = svc.slice_inference(song, "alto")
    torch.manual_seed(5)
    np.testing.assert_array_equal(svc.slice_inference(song, "alto"), first)
    assert np.abs(svc.slice_inference(song, "alto", seed=1) - first).max() > 1e-6


def test_a_shift_moves_the_f0_that_the_network_gets(svc):
    wav = torch.sin(2 * torch.pi * 220 * torch.arange(RATE) / RATE)
    _, low, _ = svc.get_unit_f0(wav, 0, 0, "alto", False, "pm")
    _, high, uv = svc.get_unit_f0(wav, 12, 0, "alto", False, "pm")
    torch.testing.assert_close(high, 2 * low)
    assert abs(low[uv > 0].median() - 220) < 2


def calls_of_infer(svc: Svc, monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple, dict]]:
    """Record the arguments of the synthesizer's calls from now on."""
    calls, infer = [], svc.synthesizer.infer

    def recorded(*args, **named):
        calls.append((args, named))
        return infer(*args, **named)

    monkeypatch.setattr(svc.synthesizer, "infer", recorded)
    return calls


def test_settings_and_features_reach_the_synthesizer(tmp_path, monkeypatch):
    config = tiny_config()
    config.model.ssl_dim, config.model.vol_embedding = 72, True
    svc = Svc(*write_model(tmp_path, config), "cpu")
    calls = calls_of_infer(svc, monkeypatch)
    wav = 0.5 * torch.sin(2 * torch.pi * 220 * torch.arange(RATE) / RATE)
    wav[RATE // 2 :] = 0.001 * torch.randn(RATE - RATE // 2, generator=torch.Generator().manual_seed(0))
    svc.convert_wav(wav, Conversion("tenor", tran=12, noice_scale=0.7, f0_predictor="pm"))
    (((_, f0, uv, speaker), named),) = calls
    assert speaker.tolist() == [[1]]
    assert named["noice_scale"] == 0.7
    tone, noise = slice(5, 38), slice(50, 80)
    assert uv[0, tone].eq(1).all() and uv[0, noise].eq(0).all()
    torch.testing.assert_close(f0[0, tone], torch.full((33,), 440.0), rtol=0.01, atol=0)
    assert named["volume"][0, tone].mean() == pytest.approx(0.5 / 2**0.5, rel=0.02)  # the RMS of a sine
    assert named["volume"][0, noise].mean() < 0.002


@pytest.mark.parametrize("auto_predict_f0", [False, True])
def test_the_model_predicts_the_pitch_only_on_request(svc, monkeypatch, auto_predict_f0):
    calls = calls_of_infer(svc, monkeypatch)
    svc.convert_wav(torch.sin(torch.arange(RATE // 4) * 0.03), Conversion("alto", auto_predict_f0=auto_predict_f0))
    assert [named["predict_f0"] for _, named in calls] == [auto_predict_f0]


def test_a_piece_is_rounded_to_16_bits_as_in_the_published_programs_file(svc, tmp_path, monkeypatch):
    audio = 0.3 * np.sin(np.arange(RATE) * 0.03)
    soundfile.write(tmp_path / "song.wav", audio, RATE, subtype="FLOAT")
    pieces = []
    monkeypatch.setattr(svc, "convert_wav", lambda wav, *_, **__: pieces.append(wav) or wav[: len(wav) // HOP * HOP])
    svc.slice_inference(tmp_path / "song.wav", "alto", pad_seconds=0)
    steps = pieces[0].numpy().astype(np.float64)[: len(audio)] * 32768
    assert np.array_equal(steps, np.round(steps))
    assert np.abs(steps - audio * 32768).max() <= 1


def test_features_have_one_column_a_frame(svc):
    for samples in (RATE, RATE + 1, RATE - 511):
        units, f0, uv = svc.get_unit_f0(torch.randn(samples) * 0.1, 0, 0, "alto", False, "dio")
        assert units.shape == (1, 72, samples // HOP)
        assert f0.shape == uv.shape == (1, samples // HOP)


def test_predictors_are_cached_by_name_and_threshold(svc, monkeypatch):
    built = []

    def build(key, rate, hop, device, threshold, folder):
        built.append((key, threshold))
        return object()

    monkeypatch.setattr("inference.feature_extractor.build_f0_predictor", build)
    monkeypatch.setattr(svc.feature_extractor, "_predictors", {})
    for key, threshold in [("pm", 0.05), ("crepe", 0.05), ("crepe", 0.3), ("pm", 0.05), ("crepe", 0.3)]:
        svc.feature_extractor.predictor(key, threshold)
    assert built == [("pm", 0.05), ("crepe", 0.05), ("crepe", 0.3)]


def test_songs_of_different_rates_in_turn_do_not_disturb_each_other(svc, tmp_path):
    a = write_song(tmp_path / "a.wav", 0.7, 32000)
    b = write_song(tmp_path / "b.wav", 0.7, 44100)
    alone = svc.slice_inference(b, "alto")
    svc.slice_inference(a, "alto")
    np.testing.assert_array_equal(svc.slice_inference(b, "alto"), alone)


def test_the_loudness_envelope_of_the_song_can_be_imposed(svc, tmp_path):
    time = np.arange(4 * RATE) / RATE
    soundfile.write(tmp_path / "song.wav", np.sin(2 * np.pi * 200 * time) * np.where(time < 2, 0.5, 0.05), RATE)
    converted = svc.slice_inference(tmp_path / "song.wav", "alto", loudness_envelope_adjustment=0)
    loud, soft = (np.sqrt(np.mean(converted[s * RATE : (s + 1) * RATE] ** 2)) for s in (0, 3))
    assert loud / soft > 5


def test_infer_gives_a_file_in_the_published_form(svc, song):
    audio, length, frames = svc.infer("tenor", 0, song)
    assert audio.shape == (length,)
    assert length == frames * HOP == int(1.5 * RATE) // HOP * HOP


def test_lack_of_memory_names_the_flag_that_cuts_the_song(svc, song, monkeypatch):
    def full(*arguments):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes")

    monkeypatch.setattr(svc, "segment", 60)
    monkeypatch.setattr(svc, "_synthesize", full)
    with pytest.raises(UserError, match=r"2 s in one piece .* memory of cpu \(.*allocate.*\); free memory$"):
        svc.slice_inference(song, "alto")
    monkeypatch.setattr(svc, "enhancer", object())  # without segments
    long = np.ones(20 * RATE, np.float32) * 0.1 * np.sin(np.arange(20 * RATE) * 0.02)
    with pytest.raises(UserError, match=r"s in one piece .* memory of cpu .*; give max_segment=5, which cuts"):
        svc.slice_inference((long, RATE), "alto")


def test_f0_filter_refuses_a_piece_without_voice(svc, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    with pytest.raises(UserError, match="no voice"):
        svc.infer("alto", 0, tmp_path / "silent.wav", f0_filter=True)


# -- models -----------------------------------------------------------------------------------------------------------


def test_a_compressed_half_precision_model_gives_nearly_the_same_song(svc, song, tmp_path):
    def compress(weights):
        return {name: tensor.half() for name, tensor in weights.items() if not name.startswith("enc_q.")}

    compressed = Svc(*write_model(tmp_path, change=compress), "cpu")
    full, small = svc.slice_inference(song, "alto"), compressed.slice_inference(song, "alto")
    assert next(compressed.synthesizer.parameters()).dtype == torch.float32
    assert np.linalg.norm(full - small) < 0.05 * np.linalg.norm(full)


def test_a_config_of_another_size_names_keys_and_shapes(tmp_path):
    model, config = write_model(tmp_path)
    values = json.loads(config.read_text(encoding="utf-8"))
    values["model"]["gin_channels"] = 6
    config.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(UserError, match=r"G_1\.pth.*emb_g\.weight.*\[2, 4\].*\[2, 6\]"):
        Svc(model, config, "cpu")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"weights": {}}, r"G_1\.pth holds no 'model'"),
        ({"model": {"discriminators.0.convs.0.bias": torch.zeros(2)}}, "it looks like SoVITS discriminator weights"),
        ({"model": {"unit_embed.weight": torch.zeros(2)}}, "it looks like shallow diffusion weights"),
    ],
)
def test_a_generator_is_needed(tmp_path, content, words):
    model, config = write_model(tmp_path)
    torch.save(content, model)
    with pytest.raises(UserError, match=words):
        Svc(model, config, "cpu")


@pytest.mark.parametrize(
    ("key", "size", "expected"),
    [("vec768l12", 256, "vec256l9"), ("vec768l12", 768, "vec768l12"), ("mfcc", 72, "mfcc")],
)
def test_a_4_0_config_without_an_encoder_is_recognised_by_its_size(key, size, expected):
    assert encoder_key(key, size, "config.json") == expected


def test_an_encoder_of_another_size_is_refused():
    with pytest.raises(UserError, match=r"config\.json.*mfcc gives 72.*takes 768"):
        encoder_key("mfcc", 768, "config.json")


def test_a_4_0_config_without_the_stretching_mode_gets_the_stepper():
    assert Config.from_dict({}).data.unit_interpolate_mode == "left"


@pytest.mark.parametrize("speaker", ["tenor", 1, "1"])
def test_a_speaker_is_known_by_name_and_by_id(svc, speaker):
    assert svc.voices.id_of(speaker) == 1


@pytest.mark.parametrize("speaker", ["tenro", 2, -1, "2", "", "²"])
def test_an_unknown_speaker_lists_the_known_ones(svc, speaker):
    with pytest.raises(UserError, match="alto|tenor"):
        svc.voices.id_of(speaker)


def test_the_nearest_speaker_is_named_first(svc):
    with pytest.raises(UserError, match="tenor, alto"):
        svc.voices.id_of("tenro")
    with pytest.raises(UserError, match="alto, tenor"):
        svc.voices.id_of("alt")


def voices_of(spk2id: dict[str, int]) -> Voices:
    return Voices(spk2id, RATE, HOP, "mfcc", "left")


def test_a_name_that_is_a_number_is_a_name_first():
    assert voices_of({"1": 0, "0": 1}).id_of("1") == 0


def test_a_model_without_names_is_addressed_by_its_rows(tmp_path):
    config = tiny_config()
    config.model.ssl_dim, config.spk = 72, {}
    assert Svc(*write_model(tmp_path, config), "cpu").voices.id_of(1) == 1


def test_a_model_of_one_speaker_needs_no_choice_and_one_of_two_lists_them(svc):
    assert voices_of({"alto": 0}).only() == "alto"
    with pytest.raises(UserError, match="alto, tenor"):
        svc.voices.only()


def test_automatic_f0_needs_a_model_that_has_it(song, tmp_path):
    config = tiny_config()
    config.model.ssl_dim, config.model.use_automatic_f0_prediction = 72, False
    plain = Svc(*write_model(tmp_path, config), "cpu")
    with pytest.raises(UserError, match="F0 decoder"):
        plain.slice_inference(song, "alto", auto_predict_f0=True)


def test_an_unloaded_model_frees_its_networks(tmp_path):
    converter = Svc(*write_model(tmp_path), "cpu")
    extractor = converter.feature_extractor
    networks = [weakref.ref(x) for x in (converter.synthesizer, extractor, extractor.predictor("pm", 0))]
    del extractor
    converter.clear_empty()
    assert all(network() for network in networks)
    converter.unload_model()
    gc.collect()
    assert not any(network() for network in networks)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"tran": 90},
        {"slice_db": 3},
        {"noice_scale": -0.1},
        {"noice_scale": float("nan")},
        {"pad_seconds": -1},
        {"clip_seconds": -1},
        {"clip_seconds": 1, "lg_num": 2},
        {"lg_num": -1},
        {"lgr_num": 0},
        {"cr_threshold": 2},
        {"loudness_envelope_adjustment": 1.5},
        {"cluster_infer_ratio": 1.5},
        {"k_step": 0},
        {"enhancer_adaptive_key": 90},
    ],
)
def test_a_value_out_of_range_is_named(settings):
    with pytest.raises(UserError, match=list(settings)[-1]):
        Conversion("alto", **settings)


def test_a_song_with_nan_is_refused_by_name(svc, tmp_path):
    audio = np.zeros(RATE, np.float32)
    audio[5000] = np.nan
    soundfile.write(tmp_path / "broken.wav", audio, RATE, subtype="FLOAT")
    with pytest.raises(UserError, match=r"broken\.wav.*NaN"):
        svc.slice_inference(tmp_path / "broken.wav", "alto")


def test_an_unknown_predictor_lists_the_known_ones():
    with pytest.raises(UserError, match="harvest"):
        Conversion("alto", f0_predictor="harvset")


# -- joints -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [44100, 48000, 32000, 22050])
@pytest.mark.parametrize("cuts", [{"clip_seconds": 0.7004}, {"clip_seconds": 0.7004, "lg_num": 0.0313}])
def test_frames_lie_within_half_a_sample_of_their_position(tmp_path, rate, cuts):
    song = Song(write_song(tmp_path / "song.wav", 4, rate))
    for layout in with_fades(lay_out(song, Conversion("alto", **cuts), RATE, HOP), rate, RATE, HOP):
        at = 0
        for piece in layout.pieces:
            expected = (layout.start + piece.start - piece.padding) * RATE / rate
            found = at - piece.overlap + 2 * piece.lead - piece.offset
            assert found == piece.origin and abs(found - expected) <= 0.5
            at += piece.length - piece.overlap + 2 * piece.lead


@pytest.mark.parametrize("cuts", [{}, {"lg_num": 0.004}, {"lg_num": 0.1, "lgr_num": 0.01}, {"lg_num": 0.7}])
def test_every_joint_is_blended_over_twenty_milliseconds_or_more(tmp_path, cuts):
    song = Song(write_song(tmp_path / "song.wav", 2.8, gaps=(1,)))
    layouts = with_fades(lay_out(song, Conversion("alto", clip_seconds=0.7, **cuts), RATE, HOP), RATE, RATE, HOP)
    fades = [piece.fade for layout in layouts for piece in layout.pieces]
    assert len(fades) > 3
    assert all(fade.overlap * fade.retain >= 0.0199 * RATE for fade in fades[1:])
