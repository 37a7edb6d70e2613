"""train.eval_judges: the judges run in another process, and no step waits for them."""

from __future__ import annotations

import functools
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from evaluation.judges import JudgeRow
from modules.config import load_config
from modules.console import UserError
from modules.training import checkpoint
from tests.fake_judges import fail, fall, give, give_when_allowed
from tests.tiny import tiny_config, write_dataset
from vits import judging, training
from vits.judging import ClipJudges, mean_figures, score

RATE = 44100
SOUND = np.zeros(4410, np.float32)


def going_on():
    return False


def stopped():
    return True


def raise_no_room(*_, **__):
    raise OSError(28, "No space left on device")


def use(monkeypatch, judge, **options):
    monkeypatch.setattr(judging, "judge_folder", functools.partial(judge, **options))


def test_figures_come_in_order_while_the_caller_goes_on(monkeypatch, tmp_path):
    use(monkeypatch, give_when_allowed, allowed=str(tmp_path / "go"))
    judges = ClipJudges("mfcc")
    for step in (2, 4):
        judges.add(step, "alto", SOUND, SOUND, RATE)
        judges.add(step, "alto", SOUND, SOUND, RATE)
        assert judges.finished(step) == []  # the clips of this step may not be complete
    assert judges.finished(5) == []  # the process waits, the caller does not
    (tmp_path / "go").touch()
    assert [step for step, _ in judges.close(going_on)] == [2, 4]


def test_a_run_that_is_stopped_ends_its_judges(monkeypatch, tmp_path):
    use(monkeypatch, give_when_allowed, allowed=str(tmp_path / "never"))
    judges = ClipJudges("mfcc")
    judges.add(2, "alto", SOUND, SOUND, RATE)
    assert judges.finished(3) == []
    process, folder = judges._waiting[0].process, Path(judges._waiting[0].folder.name)
    assert process.is_alive() and judges.close(stopped) == []
    assert not process.is_alive() and not folder.exists()


def test_a_signal_ends_the_wait_for_the_judges(monkeypatch, tmp_path, caplog):
    use(monkeypatch, give_when_allowed, allowed=str(tmp_path / "never"))
    judges, looks = ClipJudges("mfcc"), []
    judges.add(2, "alto", SOUND, SOUND, RATE)
    assert judges.close(lambda: looks.append(0) or len(looks) > 4) == []
    assert "failed" not in caplog.text and not judges._waiting


def test_validations_are_left_out_when_the_judges_are_too_slow(caplog):
    judges = ClipJudges("mfcc")
    for step in range(2, 2 * (judging.MOST_WAITING + 3), 2):
        for _ in range(2):
            judges.add(step, "alto", SOUND, SOUND, RATE)
    assert [(one.step, len(one.speakers)) for one in judges._waiting] == [(2, 2), (4, 2), (6, 2), (8, 2)]
    assert caplog.text.count("slower than the validations") == 1
    assert judges.close(stopped) == []


def test_clips_that_cannot_be_written_are_left_out_and_training_goes_on(caplog, no_room):
    judges = ClipJudges("mfcc")
    with no_room():
        judges.add(2, "alto", SOUND, SOUND, RATE)
        judges.add(2, "alto", SOUND, SOUND, RATE)
    assert "cannot be handed to the judges" in caplog.text
    assert judges.close(going_on) == []


def test_a_folder_or_a_process_that_cannot_be_made_leaves_a_validation_out_and_training_goes_on(monkeypatch, caplog):
    judges = ClipJudges("mfcc")
    with monkeypatch.context() as context:
        context.setattr(judging.tempfile, "TemporaryDirectory", raise_no_room)
        judges.add(2, "alto", SOUND, SOUND, RATE)
    assert "cannot be handed to the judges" in caplog.text and judges.finished(3) == []
    judges.add(4, "alto", SOUND, SOUND, RATE)
    judges.add(6, "alto", SOUND, SOUND, RATE)
    folders = [Path(one.folder.name) for one in judges._waiting]
    monkeypatch.setattr(SpawnProcess, "start", raise_no_room)
    assert judges.finished(5) == [] and judges.close(going_on) == []
    assert "cannot be started" in caplog.text and not any(folder.exists() for folder in folders)


def test_judges_that_fail_are_named_and_the_next_validation_is_judged(monkeypatch, caplog):
    use(monkeypatch, fail)
    judges = ClipJudges("mfcc")
    judges.add(2, "alto", SOUND, SOUND, RATE)
    assert judges.close(going_on) == [(2, {})]
    assert "judges of step 2 failed (exit code 3)" in caplog.text
    use(monkeypatch, give, figures={"cer": 0.5}, notes=["DNSMOS is left out"])
    judges.add(4, "alto", SOUND, SOUND, RATE)
    assert judges.close(going_on) == [(4, {"cer": 0.5})] and "DNSMOS is left out" in caplog.text


class Knows:
    """A panel whose opinions are read from the sound's level: made and real clips have different ones."""

    def __init__(self, opinions):
        self.opinions = opinions

    def ask(self, key, audio, rate):
        return self.opinions.get(key, {}).get(round(float(np.abs(audio).max()), 1))


def test_the_means_are_over_clips_and_a_recording_is_the_target_of_its_own_voice(tmp_path):
    pytest.importorskip("jiwer", reason="jiwer is not installed: pip install -r requirements-evaluate.txt")
    judges = ClipJudges("mfcc")
    for speaker, made, real in (("alto", 0.1, 0.2), ("bass", 0.3, 0.4)):
        judges.add(2, speaker, SOUND + np.float32(made), SOUND + np.float32(real), RATE)
    folder = Path(judges._waiting[0].folder.name)
    east, north = [1.0, 0.0], [0.0, 1.0]
    panel = Knows({
        "speaker": {0.1: east, 0.2: east, 0.3: east, 0.4: north},
        "words": {0.1: "abcd", 0.2: "abcd", 0.3: "ab", 0.4: "abcd"},
        "opinion": {0.1: 3.0, 0.3: 2.0},
    })  # fmt: skip
    figures = mean_figures(folder, ["alto", "bass"], panel)
    assert figures == pytest.approx({"dnsmos": 2.5, "cer": 0.25, "similarity": 0.5})
    assert mean_figures(folder, ["alto", "bass"], Knows({})) == {}
    judges.close(stopped)


def test_the_score_is_the_phone_error_rate_and_the_distance_of_the_voices():
    assert score({"per": 0.2, "similarity": 0.9, "cer": 1}) == pytest.approx(0.3)
    assert score({"per": 0.2}) is None


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"batch_size": 4, "eval_interval": 2, "epochs": 2, "keep_ckpts": 0, "eval_judges": True}
    write_dataset(tmp_path, tiny_config(**settings, best_by="judges"))
    monkeypatch.setattr(JudgeRow, "missing", lambda row: [])
    return tmp_path


def test_a_run_logs_the_judges_at_the_step_of_the_validation_and_keeps_the_best_by_score(work, monkeypatch, caplog):
    (work / "counter").touch()
    use(monkeypatch, fall, counter=str(work / "counter"))
    assert training.train(work / "configs" / "config.json", "44k", "cpu") == 0
    folder = work / "logs" / "44k"
    logged = EventAccumulator(str(folder / "eval")).Reload().Scalars("judges/per")
    assert [(event.step, round(event.value, 3)) for event in logged] == [(2, 0.9), (4, 0.3), (6, 0.6)]
    best = checkpoint.load_checkpoint(folder / "best_G.pth")
    assert (best["step"], best["judges_score"], best["optimizer"]) == (4, pytest.approx(0.8), None)
    weights = checkpoint.load_checkpoint(folder / "G_4.pth")["model"]
    assert all(torch.equal(best["model"][name], tensor) for name, tensor in weights.items())
    run = training.Run(load_config(work / "configs" / "config.json"), folder, torch.device("cpu"))
    assert run.best == (pytest.approx(0.8), 4)


def test_the_best_by_judges_needs_their_packages_before_the_first_step(work, monkeypatch):
    monkeypatch.setattr(JudgeRow, "missing", lambda row: ["resemblyzer"] if row.what == "speaker similarity" else [])
    with pytest.raises(UserError, match="best_by is judges, but .*resemblyzer is not installed; pip install"):
        training.train(work / "configs" / "config.json", "44k", "cpu")
    assert not list((work / "logs").rglob("G_*.pth"))


def test_the_best_by_judges_needs_the_judges(work):
    path = work / "configs" / "config.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"eval_judges": true', '"eval_judges": false'), "utf-8")
    with pytest.raises(UserError, match="train.best_by"):
        load_config(path)
