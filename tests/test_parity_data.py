"""The compact form of the original's numbers: what it keeps of an array, and that a wrong constant shows in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion import unit2mel
from tests import parity
from tests.parity import diffusion, networks
from tests.parity.compact import write_compact
from tests.parity.fixtures import SONG, WHOLE, CompactFixtures, FullFixtures
from tests.parity.projections import COUNT, SEED, Projections, project
from vits import discriminator

RNG = np.random.default_rng(0)
MOST_BYTES = 8 << 20


# -- projections ------------------------------------------------------------------------------------------------------

ERRORS = {
    "everywhere": RNG.standard_normal(200_000),
    "in one place": np.eye(1, 200_000, 77_777)[0],
    "an offset": np.ones(200_000),
    "in the last tenth": np.where(np.arange(200_000) < 180_000, 0, RNG.uniform(0, 1, 200_000)),
}


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("size", [1e-5, 1e-2, 1])
def test_the_estimate_of_an_error_is_right_to_a_third(kind, size):
    """A standard deviation of 9 % makes a third nearly four of them."""
    array = RNG.standard_normal(200_000)
    error = ERRORS[kind] * size * np.linalg.norm(array) / np.linalg.norm(ERRORS[kind])
    assert Projections.of(array).relative_error(array + error) == pytest.approx(size, rel=1 / 3)


def test_projections_are_sums_with_the_signs_that_the_words_of_the_generator_hold():
    words = np.random.PCG64(SEED).random_raw(40_000)
    array = RNG.standard_normal((4, 10_000)).astype(np.float32)
    signs = np.where(words >> np.uint64(63) & np.uint64(1), 1.0, -1.0)
    assert project(array)[63] == pytest.approx(signs @ array.ravel().astype(np.float64))
    assert [hex(word) for word in words[:2]] == ["0x8306bdf37922e4ff", "0xf35196bbc152a866"]  # in every NumPy


def test_another_shape_is_wrong_whatever_it_holds_and_so_is_nan():
    array = RNG.standard_normal((2, 300))
    wanted = Projections.of(array)
    assert wanted.relative_error(array) == 0
    assert wanted.relative_error(array.T) == np.inf
    array[1, 7] = np.nan
    meta = {"tolerance": {"max_abs": 1, "rel_l2": 1}}
    assert parity.failures({"a": array}, {"a": wanted}, meta)
    with pytest.raises(ValueError, match="whole"):
        Projections.of(array)


# -- the compact form -------------------------------------------------------------------------------------------------


def write_full(folder: Path) -> FullFixtures:
    """Two fixtures with an input in common."""
    shared = RNG.standard_normal(500).astype(np.float32)
    outputs = {
        "short": np.array([[1.0, np.nan]]),
        "long": RNG.standard_normal((3, WHOLE)).astype(np.float32),
        "exact": np.arange(WHOLE + 1),
    }
    meta = {"tolerance": {"max_abs": 1, "rel_l2": 1e-3}, "tolerance_for": {"exact": {"max_abs": 0, "rel_l2": 0}}}
    (folder / "fixtures").mkdir()
    for name in ("A_one", "B_two"):
        (folder / "fixtures" / f"{name}.json").write_text(json.dumps(meta), encoding="utf-8")
        arrays = {f"out_{key}": value for key, value in outputs.items()}
        np.savez(folder / "fixtures" / f"{name}.npz", in_x=shared, **arrays)
    return FullFixtures(folder)


def test_the_compact_form_has_the_same_inputs_once_and_the_outputs_or_their_projections(tmp_path):
    full = write_full(tmp_path)
    write_compact(full, tmp_path / "compact")
    compact = CompactFixtures(tmp_path / "compact")
    assert compact.names() == full.names() == ["A_one", "B_two"]
    assert len(np.load(tmp_path / "compact" / "inputs.npz").files) == 1
    for name in compact.names():
        assert compact.meta(name) == full.meta(name)
        np.testing.assert_array_equal(compact.inputs(name)["x"], full.inputs(name)["x"])
        found, wanted = compact.outputs(name), full.outputs(name)
        assert list(found) == list(wanted)
        for key in ("short", "exact"):
            np.testing.assert_array_equal(found[key], wanted[key])
        assert found["long"].relative_error(wanted["long"]) == 0
        assert found["long"].norm == pytest.approx(np.linalg.norm(wanted["long"]))


def test_a_folder_without_fixtures_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no fixtures"):
        FullFixtures(tmp_path)


def test_the_data_of_a_clone_are_small_and_every_long_output_has_its_projections():
    data = CompactFixtures(parity.DATA)
    assert sum(path.stat().st_size for path in parity.DATA.iterdir()) < MOST_BYTES
    projected = 0
    for name in [*data.names(), SONG]:
        for output in data.outputs(name).values():
            if isinstance(output, Projections):
                assert output.values.shape == (COUNT,) and output.norm > 0
                projected += 1
    assert projected > 300


# -- wrong constants --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "adapter", "module", "constant", "wrong"),
    [
        ("B_mpd", networks.discriminator, discriminator, "SLOPE", 0.2),
        ("F_sampling_small", diffusion.sampling, unit2mel, "QUIETEST", -11.0),
    ],
)
def test_a_wrong_constant_shows_in_the_projections(name, adapter, module, constant, wrong, monkeypatch):
    data = CompactFixtures(parity.DATA)
    meta = data.meta(name)
    projected = {key: want for key, want in data.outputs(name).items() if isinstance(want, Projections)}
    monkeypatch.setattr(module, constant, wrong)
    diffusion._network.cache_clear()
    with parity.zeroed_draws(meta), torch.no_grad():
        got = adapter(data.inputs(name), meta)
    diffusion._network.cache_clear()
    assert parity.failures(got, projected, meta)
