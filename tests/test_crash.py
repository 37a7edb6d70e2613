"""A run that is killed at any moment, or whose disk fills up, loses nothing that it has logged as saved.

The number of kills is small here. ``SVC_KILLS=50 pytest tests/test_crash.py`` kills as often as one likes, at other
moments with another ``SVC_SEED``; ``-s`` shows a line of figures.
"""

import contextlib
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from modules.config import load_config, save_config
from modules.data.features import ClipFiles
from modules.training import saving
from preparation.configs import fitted_configs
from tests.tiny import tiny_config, write_clip, write_dataset
from vits import saved_models, training

KILLS, SEED = int(os.environ.get("SVC_KILLS", "3")), int(os.environ.get("SVC_SEED", "1"))
PATIENCE = 120  # seconds, for what takes a few on an idle machine


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wait_for(condition, process, what):
    """Wait until the condition holds or the process ends; returns whether the process is still running."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, f"no {what}\n{process.read_errors()}"
        time.sleep(0.002)
    return True


# -- training ---------------------------------------------------------------------------------------------------------


def prepare_training(**train):
    """A run that saves almost all the time: after each step, and after a validation at each fourth."""
    config = tiny_config(batch_size=4, log_interval=1, eval_interval=4, keep_ckpts=2, epochs=10_000_000, **train)
    write_dataset(Path.cwd(), config)


class Diary:
    """Reads a run's text log."""

    def __init__(self):
        self.path = Path("logs/44k/train.log")

    @property
    def text(self):
        return self.path.read_text(encoding="utf-8") if self.path.exists() else ""

    @property
    def saved(self):
        """The steps logged as saved, in order."""
        return [int(step) for step in re.findall(r"saved \S*G_(\d+)\.pth", self.text)]

    @property
    def beginnings(self):
        """The step at which each start of the run began."""
        found = re.findall(r"(a new run in)|resuming .* at step (\d+)", self.text)
        return [int(step or 0) for _, step in found]

    def losses(self):
        """Every (step, losses) line, in the order written."""
        return [(int(step), losses) for losses, step in re.findall(r"Losses: \[(.*?)\], step: (\d+)", self.text)]


def test_a_run_killed_at_any_moment_resumes_exactly_from_the_last_save(work, start_script):
    prepare_training()
    draw, diary, torn = random.Random(SEED), Diary(), 0
    for number in range(KILLS + 1):
        promised = max(diary.saved, default=0)
        process = start_script("train.py", "-m", "44k", "-d", "cpu", "--save_every_minutes=1e-6")
        known, begun = len(diary.losses()), len(diary.beginnings)
        with contextlib.ExitStack() as stack:
            stack.callback(process.wait)
            stack.callback(process.kill)

            def learning(known=known, begun=begun):
                return len(diary.beginnings) > begun and len(diary.losses()) > known

            if number % 3 == 1:  # kill it while it starts or reads checkpoints
                time.sleep(draw.uniform(0, 2))
                continue
            assert wait_for(learning, process, "step"), process.read_errors()
            assert diary.beginnings[-1] >= promised, "it resumed from an older checkpoint than the last complete one"
            time.sleep(draw.uniform(0, 1))
        torn += bool(list(Path("logs/44k").glob(f".*.{saving.MARK}.pth")))
    of_step = {}
    for step, losses in diary.losses():
        of_step.setdefault(step, set()).add(losses)
    assert sorted(of_step) == list(range(1, max(of_step) + 1))
    assert all(len(losses) == 1 for losses in of_step.values()), "a repeated step had other losses"
    again = len(diary.losses()) - len(of_step)
    print(f"\n{KILLS + 1} kills, {torn} within a save; {len(diary.saved)} saves, {len(of_step)} steps, {again} again")
    left = {path.name for path in Path("logs/44k").glob("*.broken")}
    assert not left, "no checkpoint is truncated after a kill"
    run = training.Run(load_config("configs/config.json"), Path("logs/44k"), torch.device("cpu"))
    assert run.step >= max(diary.saved)
    run.step += 1
    run.save()
    kept = [pair.step for pair in saved_models.pairs("logs/44k")]
    assert kept[0] == run.step and len(kept) <= 2, "the next save deletes the remains of the kills"
    assert {path.name for path in Path("logs/44k").glob("state*")} == {f"state_{step}.pth" for step in kept}
    assert not list(Path("logs/44k").glob(".*"))


@contextlib.contextmanager
def small_disk(folder, megabytes):
    """Mount a disk of that size at ``folder``; skips the test if this process may not mount."""
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if not sys.platform.startswith("linux") or subprocess.run(["mount", *options], capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_with_a_full_disk_the_run_goes_on_and_saves_when_there_is_room_again(work, caplog, monkeypatch):
    prepare_training()
    config = load_config("configs/config.json")
    config.train.epochs, config.train.eval_interval = 6, 3
    save_config(config, "configs/config.json")
    spare = saving.SPARE >> 20
    with small_disk(work / "logs", spare + 24) as disk:
        ballast, validate = disk / "ballast", training.Run.validate
        good, pair = [], []

        def with_less_room(run, training_log, stop):
            """No room for the second save. For the third, half of what it needs, hidden from the check before it, as if
            others wrote meanwhile. For the fourth, half, visible to the check. Then enough."""
            ballast.unlink(missing_ok=True)
            room = {6: 0, 9: sum(pair) // 2, 12: sum(pair) // 2}.get(run.step)
            if run.step == 9:
                monkeypatch.setattr(saving, "SPARE", -(1 << 40))
            if room is not None:
                with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
                    while file.write(bytes(1 << 16)):
                        pass
                os.truncate(ballast, ballast.stat().st_size - room)
            validate(run, training_log, stop)
            monkeypatch.setattr(saving, "SPARE", spare << 20)
            good.append(saved_models.read_newest("logs/44k")[0].step)
            pair[:] = pair or [path.stat().st_size for path in saved_models.Pair(Path("logs/44k"), 3).files]

        monkeypatch.setattr(training.Run, "validate", with_less_room)
        assert training.train("configs/config.json", "44k", "cpu") == 0
        assert good == [3, 3, 3, 3, 15, 18]
        said = re.findall(r"step (\d+) is not saved: (.*)\. Training goes on", caplog.text)
        assert [int(step) for step, _ in said] == [6, 9, 12]
        assert "a checkpoint needs" in said[0][1] and "the disk is full" in said[1][1], said
        assert all("intact" in sentence for _, sentence in said)
        assert not list(Path("logs/44k").glob(".*")), "unfinished files were left behind"
        assert Diary().losses()[-1][0] == 18, "the text log has all its lines"


# -- preparing --------------------------------------------------------------------------------------------------------


def prepare_clips(count):
    for number in range(count):
        path = Path("dataset/44k/alto") / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(path, 0.4 + 0.05 * (number % 8), seed=number)
    for path in sidecars():
        path.unlink()
    config, _ = fitted_configs({"alto": 0}, "mfcc", vol_aug=True)
    save_config(config, "configs/config.json")


def sidecars():
    """The files beside the clips, except unfinished ones, which all stages ignore."""
    return [
        path for path in Path("dataset/44k").glob("*/*") if path.suffix != ".wav" and not path.name.startswith(".")
    ]


def test_preparing_killed_at_any_moment_and_continued_gives_the_bytes_of_an_uninterrupted_run(work, start_script):
    prepare_clips(20 * max(KILLS // 4, 1))
    arguments = "preprocess_hubert_f0.py", "-d", "cpu", "--f0_predictor", "pm"
    began = time.monotonic()
    process = start_script(*arguments)
    assert wait_for(sidecars, process, "sidecar file")
    first = time.monotonic()
    assert process.wait(PATIENCE) == 0, process.read_errors()
    working = time.monotonic() - first
    whole = {path: path.read_bytes() for path in sidecars()}
    assert len(whole) == 5 * len(list(Path("dataset/44k").glob("*/*.wav"))), "units, F0, spectrogram, volume and origin"
    for path in whole:
        path.unlink()

    draw, kills = random.Random(SEED), 0
    for _ in range(max(KILLS * 2 // 5, 2)):
        process, there = start_script(*arguments), len(sidecars())
        if wait_for(lambda there=there: len(sidecars()) > there, process, "sidecar file"):
            time.sleep(draw.uniform(0, 2 * working / max(KILLS * 2 // 5, 2)))
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert start_script(*arguments).wait(PATIENCE) == 0
    print(f"\n{kills} kills within {working:.1f} s of work of {first - began + working:.1f} s")
    assert {path: path.read_bytes() for path in sidecars()} == whole
    for clip in Path("dataset/44k").glob("*/*.wav"):
        assert torch.isfinite(ClipFiles(clip).read_units()).all()
