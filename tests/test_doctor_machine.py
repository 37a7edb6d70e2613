"""doctor.py's section about the machine: each fault with its cure."""

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from checkup import machine as machine_module
from checkup.machine import Gpu, Machine, judge, measure, supports
from checkup.project import CLIPS, RAW
from tests.doctor_project import GIB, GOOD

CARD = Gpu("RTX 5090", (12, 0), 32 * GIB, 31 * GIB)


MACHINES = {
    "old Python": (replace(GOOD, python=(3, 9)), "Python 3.9 is too old", "Python 3.13"),
    "package missing": (replace(GOOD, packages=["librosa is missing"]), "librosa is missing",
        "pip install -r requirements.txt"),
    "package of training missing": (
        replace(GOOD, training_packages=["tensorboard is missing"], has_data=True), "tensorboard is missing",
        "pip install -r requirements.txt"),
    "PyTorch missing": (
        replace(GOOD, torch_error="ModuleNotFoundError: torch"), "PyTorch cannot be imported", "pytorch.org"),
    "old PyTorch": (replace(GOOD, torch="2.1.0"), "PyTorch 2.1.0 is too old", "pytorch.org"),
    "PyTorch without CUDA": (replace(GOOD, driver="RTX 4090, 570.1, 24564 MiB"), "has no CUDA", "pytorch.org"),
    "old driver": (replace(GOOD, driver="RTX 4090, 470.1, 24564 MiB", cuda="13.0"), "not usable", "driver"),
    "new GPU": (replace(GOOD, cuda="12.4", gpus=[CARD], architectures=["sm_80", "sm_90"]), "is sm_120", "pytorch.org"),
    "full disk": (replace(GOOD, disk=0.2 * GIB), "0.2 GiB of this disk", "make room"),
    "no permission": (replace(GOOD, read_only=["logs"]), "no permission to write to logs", "owner"),
}  # fmt: skip


@pytest.mark.parametrize("name", MACHINES)
def test_a_fault_of_the_machine_is_named_with_its_cure(name):
    machine, cause, cure = MACHINES[name]
    (found,) = [finding for finding in judge(machine) if finding.level != "ok"]
    assert found.level == "error" and cause in found.what and cure in found.cure


def test_doubtful_machines_are_warnings():
    for machine in (
        replace(GOOD, training_packages=["tensorboard is missing"]), replace(GOOD, memory=GIB),
        replace(GOOD, disk=4 * GIB), replace(GOOD, encoding="ascii"),
        replace(GOOD, python=(3, 99)), replace(GOOD, gpus=[replace(CARD, total=4 * GIB)]),
        replace(GOOD, gpus=[replace(CARD, free=GIB)]),
    ):  # fmt: skip
        assert [finding.level for finding in judge(machine) if finding.level != "ok"] == ["warning"]


def test_binary_code_runs_on_its_major_version_and_intermediate_code_on_newer_ones():
    assert supports(["sm_80"], (8, 6)) and supports(["sm_90a"], (9, 0)) and supports(["sm_120"], (12, 0))
    assert not supports(["sm_86"], (8, 0)) and not supports(["sm_90"], (10, 0))
    assert supports(["compute_90"], (12, 0)) and not supports(["compute_90"], (8, 9))
    assert supports(["gfx90a"], (9, 0)), "ROCm"


def test_this_machine_has_what_the_tests_need():
    machine = measure(RAW, CLIPS)
    assert (
        machine.packages == machine.training_packages == [] and machine.torch == torch.__version__ and machine.disk > 0
    )


def test_only_a_machine_with_recordings_or_clips_needs_the_packages_of_training(tmp_path):
    (tmp_path / "raw").mkdir()
    assert not measure(tmp_path / "raw", tmp_path / "clips").has_data
    (tmp_path / "clips" / "alto").mkdir(parents=True)
    assert measure(tmp_path / "raw", tmp_path / "clips").has_data


def test_gpus_are_measured_as_pytorch_reports_them():
    cuda = SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 2, get_arch_list=lambda: ["sm_90"],
        get_device_name=lambda number: f"card {number}", get_device_capability=lambda number: (9, number),
        mem_get_info=lambda number: (GIB, 8 * GIB),
    )  # fmt: skip
    backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False))
    library = SimpleNamespace(
        __version__="2.13.0+cu130",
        version=SimpleNamespace(cuda="13.0"),
        backends=backends,
        cuda=cuda,
        device=torch.device,
    )
    machine = Machine()
    machine_module._measure_torch(machine, library)
    assert (machine.torch, machine.cuda, machine.architectures) == ("2.13.0+cu130", "13.0", ["sm_90"])
    assert machine.gpus == [Gpu(f"card {number}", (9, number), 8 * GIB, GIB) for number in range(2)]


@pytest.mark.skipif(os.name == "nt", reason="the program is a shell script")
def test_the_driver_is_that_of_nvidia_smi(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'RTX 4090, 570.1, 24564 MiB'\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert measure(RAW, CLIPS).driver == "RTX 4090, 570.1, 24564 MiB"
