import math
from dataclasses import fields

import numpy as np
import pytest

import demo
from demonstration.report import measure
from demonstration.singer import BRIGHT, DARK, SAMPLING_RATE, Song, random_phrase, sing
from modules.config import DataConfig, ModelConfig, TrainConfig


@pytest.fixture(scope="module")
def songs() -> tuple[Song, Song]:
    notes = random_phrase(np.random.default_rng(3), 2.0, 55, 64)
    return sing(DARK, notes, seed=3), sing(BRIGHT, notes, seed=3)


def test_a_perfect_conversion_misses_no_goal(songs):
    source, target = songs
    report = measure(target.audio, source.audio, target.audio, source.f0, SAMPLING_RATE)
    assert report.missed() == []
    assert report.to_target == 0 and report.buzz == 0
    assert report.to_source == pytest.approx(report.unconverted, rel=0.2)


def test_the_unconverted_song_misses_the_goals_of_the_voice_and_keeps_those_of_the_notes(songs):
    source, target = songs
    report = measure(source.audio, source.audio, target.audio, source.f0, SAMPLING_RATE)
    assert len(report.missed()) == 2 and all("distance" in goal or "nearer" in goal for goal in report.missed())
    assert report.to_source == 0 and report.to_target > 3


def test_noise_of_the_same_colour_misses_the_goals_of_the_notes(songs):
    source, target = songs
    noise = np.random.default_rng(1).standard_normal(len(target.audio)).astype(np.float32) * 0.1
    report = measure(noise, source.audio, target.audio, source.f0, SAMPLING_RATE)
    assert any("F0" in goal for goal in report.missed()) and any("voicing" in goal for goal in report.missed())


def test_the_demo_changes_only_keys_that_the_configuration_has_and_its_decoder_fits_the_hop():
    assert set(demo.SMALL_MODEL) <= {field.name for field in fields(ModelConfig)}
    assert set(demo.SHORT_TRAINING) <= {field.name for field in fields(TrainConfig)}
    assert set(demo.FINE_MEL) <= {field.name for field in fields(DataConfig)}
    assert math.prod(demo.SMALL_MODEL["upsample_rates"]) == DataConfig().hop_length
    assert demo.SHORT_TRAINING["segment_size"] % DataConfig().hop_length == 0
