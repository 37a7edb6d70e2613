"""A good project that stages 1 to 4 have made, a good machine, and doctor.py's findings on them."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

import doctor
import preprocess_flist_config
import preprocess_hubert_f0
import resample
import train
from checkup import machine as machine_module
from checkup.machine import Machine
from downloads.catalog import FILES
from downloads.fetching import hash_of
from modules.config import load_config, save_config
from modules.training.checkpoint import load_checkpoint, save_checkpoint
from tests.pitch_files import write_fcpe
from tests.test_variants_end_to_end import SIZES, record
from tests.tiny import tiny_config
from vits.training_log import TrainingLog

GIB = 2**30
GOOD = Machine(
    python=(3, 11), torch="2.13.0", memory=16 * GIB, disk=100 * GIB, ffmpeg="/usr/bin/ffmpeg", encoding="utf-8"
)


@functools.cache
def good_project() -> Path:
    """Return a folder in which stages 1 to 4 were run once on short recordings of two voices, with a weight file."""
    folder = Path(tempfile.mkdtemp(prefix="good"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for number in range(8):
        voice = ("alto", "tenor")[number % 2]
        record(folder / "dataset_raw" / voice / f"{number}.wav", 0.6 + 0.05 * number, 180 + 20 * number)
    (folder / "pretrain").mkdir()
    write_fcpe(folder / "pretrain" / "fcpe.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("_mel", "_curves"):  # pictures take as long as training
            patch.setattr(TrainingLog, name, lambda *_: None)
        assert resample.main(["--num_processes", "1"]) == 0
        assert preprocess_flist_config.main(["--speech_encoder", "mfcc"]) == 0
        config, tiny = load_config("configs/config.json"), tiny_config(epochs=1, batch_size=2, log_interval=1000)
        for key in SIZES:
            setattr(config.model, key, getattr(tiny.model, key))
        config.train = tiny.train
        save_config(config, "configs/config.json")
        assert preprocess_hubert_f0.main(["--f0_predictor", "pm", "-d", "cpu"]) == 0
        assert train.main(["-m", "44k", "-d", "cpu"]) == 0
        for path in Path("logs/44k").glob("[GD]_*.pth"):  # two thirds of the tensors, which every examination scans
            save_checkpoint(path, {**load_checkpoint(path), "optimizer": None})
    return folder


def copy_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the good project as ``enter_copy`` does, with clips that are newer than the copies of the recordings."""
    enter_copy(folder, monkeypatch)
    later = max(path.stat().st_ctime_ns for path in folder.glob("dataset_raw/*/*")) + 1
    for clip in folder.glob("dataset/44k/*/*"):
        os.utime(clip, ns=(later, later))
    return folder


def enter_copy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy the good project with its times of modification, and go there, on a good machine."""
    shutil.copytree(good_project(), folder)
    monkeypatch.chdir(folder)
    set_machine(monkeypatch, GOOD)
    (source,) = FILES["fcpe.pt"].sources
    small = replace(source, sha256=hash_of(folder / "pretrain/fcpe.pt"))
    monkeypatch.setitem(FILES, "fcpe.pt", replace(FILES["fcpe.pt"], sources=(small,)))


def set_machine(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    """Let doctor.py find this machine."""
    monkeypatch.setattr(machine_module, "measure", lambda *_: machine)


def findings_of(capsys, *flags):
    """Run the script with --json; returns its exit code, all findings, and the next step."""
    code = doctor.main(["--json", *flags])
    report = json.loads(capsys.readouterr().out)
    return code, [finding for section in report["sections"].values() for finding in section], report["next"]


def files_in(folder: Path) -> dict[str, tuple[int, int]]:
    """Return path -> size and modification time of everything in a folder, of folders too."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in (folder, *folder.rglob("*"))
    }  # fmt: skip
