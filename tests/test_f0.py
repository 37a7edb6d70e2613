"""F0 predictors on audio with known F0, and the post-processing of their curves."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import inference_main
import preprocess_hubert_f0
from demonstration.singer import Note, Voice, sing
from inference.conversion import Conversion
from modules.console import UserError
from modules.f0 import F0_PREDICTORS, F0Predictor, build_f0_predictor, list_predictors
from modules.f0.contour import interpolate_unvoiced, resize_linear, resize_nearest
from modules.f0.crepe import FourierConv

RATE, HOP = 44100, 512
CHEAP = [key for key, row in F0_PREDICTORS.rows.items() if not row.neural]


def glide(seconds: float, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """A voice-like sound (ten harmonics) gliding from one F0 to the other, and its F0 at each sample."""
    time = np.arange(int(seconds * RATE)) / RATE
    f0 = low * (high / low) ** (time / seconds)
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    sound = sum(np.sin(k * phase) / k for k in range(1, 11)) * 0.2
    return sound.astype(np.float32), f0


def agrees(key: str, seconds: float, cents: float) -> None:
    sound, truth = glide(seconds, 180, 360)
    f0, uv = build_f0_predictor(key, RATE, HOP)(sound)
    assert f0.shape == uv.shape == (len(sound) // HOP,) and f0.dtype == uv.dtype == np.float32
    inner = slice(6, -6)
    assert uv[inner].mean() > 0.95
    at_frames = truth[(np.arange(len(f0)) * HOP).clip(max=len(truth) - 1)]
    assert np.median(np.abs(1200 * np.log2(f0[inner] / at_frames[inner]))) < cents


@pytest.mark.parametrize("key", CHEAP)
def test_a_glide_is_followed(key):
    agrees(key, 1.0, 40)


def test_crepe_follows_a_glide():
    agrees("crepe", 0.4, 40)


def test_crepe_gives_the_same_f0_twice_and_samples_no_random_numbers(monkeypatch):
    import scipy.stats

    monkeypatch.setattr(scipy.stats.triang, "rvs", lambda *_, **__: pytest.fail("torchcrepe's dither was sampled"))
    sound, _ = glide(0.2, 200, 300)
    before = torch.get_rng_state()
    first, second = (build_f0_predictor("crepe")(sound)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_crepes_weights_are_read_once(monkeypatch):
    from modules.f0 import crepe

    network = crepe._network(torch.device("cpu"))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the weights were read again"))
    assert build_f0_predictor("crepe")(glide(0.1, 200, 200)[0])[1].any()
    assert crepe._network(torch.device("cpu")) is network


def test_fourier_convolution_is_the_convolution():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 5, (64, 1))
    for samples in (64, 71, 191):
        x = torch.randn(2, 3, samples, 1)
        torch.testing.assert_close(FourierConv(conv)(x), conv(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("key", [*CHEAP, "crepe"])
def test_silence_and_the_shortest_sounds_give_zeros_of_the_right_length(key):
    predict = build_f0_predictor(key)
    for samples in (0, 1, 511, 512, 1100, 2000, 2646):
        for frames in (None, samples // HOP + 1):
            f0, uv = predict(np.zeros(samples, np.float32), frames)
            assert f0.shape == uv.shape == (samples // HOP if frames is None else frames,)
            assert not f0.any() and not uv.any()


@pytest.mark.parametrize("key", CHEAP)
@pytest.mark.parametrize("samples", [1, 513, 700, 1500, 2647, 3100, 9000])
def test_noise_of_any_length_is_finite(key, samples):
    audio = np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)
    f0, uv = build_f0_predictor(key)(audio)
    assert len(f0) == samples // HOP and np.isfinite(f0).all() and set(uv.tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("key", CHEAP)
@settings(max_examples=10, deadline=None)
@given(
    samples=st.integers(0, 20000),
    rate=st.sampled_from([16000, 22050, 32000, 44100, 48000]),
    hop=st.sampled_from([160, 256, 320, 512]),
    extra=st.sampled_from([None, 0, 1, 3]),
)
def test_any_length_at_any_rate_has_a_value_for_each_whole_hop(key, samples, rate, hop, extra):
    audio = glide(0.46, 180, 360)[0][:samples]
    frames = len(audio) // hop if extra is None else len(audio) // hop + extra
    f0, uv = build_f0_predictor(key, rate, hop)(audio, None if extra is None else frames)
    assert f0.shape == uv.shape == (frames,) and np.isfinite(f0).all() and (f0 >= 0).all()


@pytest.mark.parametrize(("rate", "hop"), [(16000, 160), (22050, 256), (44100, 512)])
def test_crepe_has_a_value_for_each_whole_hop_too(rate, hop):
    predict = build_f0_predictor("crepe", rate, hop)
    window = -(-1024 * rate // 16000)
    for samples, extra in ((hop, None), (window - 1, 1), (window, None), (window + 1, -2), (3 * window // 2, 3)):
        frames = samples // hop + (extra or 0)
        f0, uv = predict(glide(0.2, 180, 360)[0][:samples], None if extra is None else frames)
        assert f0.shape == uv.shape == (frames,) and np.isfinite(f0).all() and (f0 >= 0).all()


@pytest.mark.parametrize("key", CHEAP)
def test_the_number_of_frames_can_differ_by_three(key):
    sound, _ = glide(0.5, 200, 220)
    for difference in (-3, 0, 1, 3):
        assert len(build_f0_predictor(key)(sound, len(sound) // HOP + difference)[0]) == len(sound) // HOP + difference
    with pytest.raises(ValueError, match="frames"):
        build_f0_predictor(key)(sound, len(sound) // HOP + 4)


def test_praats_frames_are_trimmed_when_there_are_too_many():
    from modules.f0.pm import _centred

    curve = np.arange(10.0)
    np.testing.assert_array_equal(_centred(curve, 7), [1, 2, 3, 4, 5, 6, 7])
    np.testing.assert_array_equal(_centred(curve, 10), curve)
    np.testing.assert_array_equal(_centred(curve[:2], 5), [0, 0, 0, 1, 0])


def test_dio_rounds_to_tenths_and_harvest_does_not():
    sound, _ = glide(0.5, 200, 250)
    frames = len(sound) // HOP + 1  # WORLD's own number, so nothing is resized
    for key, rounded in (("dio", True), ("harvest", False)):
        f0, uv = build_f0_predictor(key)(sound, frames)
        tenths = f0[uv > 0] * 10
        assert np.allclose(tenths, np.round(tenths), atol=1e-3) == rounded


def test_an_unknown_predictor_is_named_with_the_nearest_first():
    with pytest.raises(UserError, match="'harvst'; known: harvest"):
        build_f0_predictor("harvst")


def test_every_row_that_needs_no_file_builds_a_predictor(tmp_path):
    keys = [key for key, row in F0_PREDICTORS.rows.items() if not row.weight]
    assert set(keys) >= {*CHEAP, "crepe"}
    for key in keys:
        assert isinstance(build_f0_predictor(key, 16000, 160, folder=tmp_path), F0Predictor)


@pytest.mark.parametrize("key", [*CHEAP, "crepe", "fcpe"])
def test_f0_is_found_within_the_rows_range_and_never_outside_it(key):
    row, predict = F0_PREDICTORS[key], build_f0_predictor(key)
    room = np.random.default_rng(0).normal(0, 0.01, RATE // 2).astype(np.float32)
    for low, high in ((60, 62), (700, 1050)):
        f0, uv = predict(glide(0.5, low, high)[0] + room)
        assert uv[6:-6].mean() > 0.6 and low / 1.05 < np.median(f0[uv > 0]) < high * 1.05
    for low, high in ((20, 32), (1150, 2500)):
        f0, uv = predict(glide(0.5, low, high)[0] + room)
        assert (f0[uv > 0] > row.lowest / 1.1).all() and (f0[uv > 0] < row.highest * 1.1).all()


def test_conversions_default_keeps_bright_high_notes_in_their_octave():
    predict = build_f0_predictor(Conversion.f0_predictor)
    for tilt, vowel in ((7, "e"), (7, "u"), (9, "e"), (9, "a")):
        song = sing(Voice(1.12, tilt, 0.1), [Note(81, 0.6, vowel)], seed=81 + 10 * tilt)
        f0, _ = predict(song.audio, len(song.f0))
        assert np.median(np.abs(1200 * np.log2(f0 / song.f0)[song.voiced])) < 50, (tilt, vowel)


def test_rmvpes_range_is_its_first_and_last_bin():
    from modules.f0.rmvpe import BIN_WIDTH, BINS, FIRST_BIN

    first, last = (10 * 2 ** ((FIRST_BIN + BIN_WIDTH * number) / 1200) for number in (0, BINS - 1))
    row = F0_PREDICTORS["rmvpe"]
    assert (row.lowest, row.highest) == (pytest.approx(first, abs=0.5), pytest.approx(last, abs=1))


def test_flags_and_readme_name_every_predictor_with_its_range():
    listed = list_predictors()
    for key, row in F0_PREDICTORS.rows.items():
        assert re.search(rf"\b{key}\b[^()]*\({row.range}\)", listed)
    root = Path(__file__).parents[1]
    for page in ("prepare", "convert"):
        assert listed in (root / "docs" / f"{page}.md").read_text(encoding="utf-8").replace("`", "")
    for module in (inference_main, preprocess_hubert_f0):
        assert listed in " ".join(module.build_parser().format_help().split())


# -- curves -----------------------------------------------------------------------------------------------------------


def test_gaps_are_interpolated_linearly_and_ends_are_constant():
    f0, uv = interpolate_unvoiced(np.array([0, 100, 0, 0, 130, 0.0]))
    np.testing.assert_allclose(f0, [100, 100, 110, 120, 130, 130])
    np.testing.assert_array_equal(uv, [0, 1, 0, 0, 1, 0])


def test_a_single_voiced_frame_fills_the_curve():
    f0, uv = interpolate_unvoiced(np.array([0, 0, 200.0, 0]))
    np.testing.assert_array_equal(f0, [200] * 4)
    np.testing.assert_array_equal(uv, [0, 0, 1, 0])


def test_no_voiced_frame_is_zeros():
    for curve in (np.zeros(3), np.zeros(0)):
        f0, uv = interpolate_unvoiced(curve)
        assert not f0.any() and not uv.any() and f0.dtype == np.float32


def test_linear_resizing_leaves_no_value_between_voiced_and_unvoiced():
    np.testing.assert_allclose(resize_linear(np.array([100, 200, 0, 300.0]), 8), [100, 150, 200, 0, 0, 0, 300, 300])
    np.testing.assert_array_equal(resize_linear(np.zeros(0), 3), [0, 0, 0])


def test_nearest_resizing_is_torchs():
    for source, frames in ((60, 86), (86, 60), (7, 7), (200, 173), (173, 200), (1, 5)):
        curve = np.arange(source, dtype=np.float32)
        expected = torch.nn.functional.interpolate(torch.from_numpy(curve)[None, None], size=frames, mode="nearest")
        np.testing.assert_array_equal(resize_nearest(curve, frames), expected[0, 0])
