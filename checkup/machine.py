"""The machine: Python, packages, PyTorch and its GPU, memory, disk, and the system's settings."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from checkup.finding import Finding, error, ok, warning

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)
ROOT = Path(__file__).resolve().parent.parent
TO_CONVERT, ALL = "requirements-convert.txt", "requirements.txt"
SAME_PACKAGE = {  # other distributions that hold a required package
    "faiss-cpu": ("faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12"), "pyworld-prebuilt": ("pyworld",),
}  # fmt: skip
GIB = 2**30
LEAST_DISK = 1.5 * GIB  # for one checkpoint of the default model
GOOD_DISK = 8 * GIB  # for train.keep_ckpts checkpoints, and one that is being written
LEAST_MEMORY = 3 * GIB
LEAST_VRAM = 5.5 * GIB
WRITTEN = ("dataset", "filelists", "configs", "logs", "pretrain", "results")  # folders of the project
SECONDS_FOR_DRIVER = 20
INSTALL = f"pip install -r {ALL}"
INSTALL_AGAIN = f"pip install --force-reinstall -r {ALL}"
INSTALL_TORCH = "pip install torch torchaudio, with the command that pytorch.org gives for your system"


@dataclass(frozen=True)
class Gpu:
    """A GPU; ``capability`` is its architecture, such as (12, 0); memory in bytes."""

    name: str
    capability: tuple[int, int]
    total: float
    free: float


@dataclass
class Machine:
    """Facts about the machine. ``memory`` (free) and ``disk`` (free) are in bytes, None if unknown.

    Attributes:
        packages: a clause for each that is missing or too old and that every use needs.
        training_packages: the same for those that only preparation and training need.
        has_data: whether there are recordings or clips, so that those are needed too.
        torch, torch_error: the version of PyTorch, or why it cannot be imported.
        cuda: the CUDA version that PyTorch was built for; None for a build without CUDA.
        architectures: those that PyTorch was built for, such as ``sm_90`` and ``compute_90``.
        driver: the line of nvidia-smi about the first GPU; empty if there is none.
        gpus: the GPUs that PyTorch can use.
    """

    python: tuple[int, int] = field(default_factory=lambda: sys.version_info[:2])
    system: str = field(default_factory=platform.platform)
    packages: list[str] = field(default_factory=list)
    training_packages: list[str] = field(default_factory=list)
    has_data: bool = False
    torch: str = ""
    torch_error: str = ""
    cuda: str | None = None
    has_mps: bool = False
    architectures: list[str] = field(default_factory=list)
    gpus: list[Gpu] = field(default_factory=list)
    driver: str = ""
    memory: float | None = None
    disk: float | None = None
    read_only: list[str] = field(default_factory=list)
    ffmpeg: str | None = None
    encoding: str = field(default_factory=sys.getfilesystemencoding)


def measure(raw: Path, clips: Path) -> Machine:
    """Measure this machine and the current folder; ``raw`` and ``clips`` are the folders of recordings and clips."""
    machine = Machine(driver=_driver(), ffmpeg=shutil.which("ffmpeg"))
    machine.packages, machine.training_packages = (list(_missing_packages(name)) for name in (TO_CONVERT, ALL))
    machine.has_data = any(path.is_dir() for folder in (raw, clips) for path in folder.glob("*"))
    machine.disk = shutil.disk_usage(".").free
    folders = [".", *(name for name in WRITTEN if os.path.isdir(name))]
    machine.read_only = [name for name in folders if not os.access(name, os.W_OK)]
    try:
        import torch
    except Exception as failure:  # ImportError, OSError of a library, RuntimeError of a mixed installation
        machine.torch_error = f"{type(failure).__name__}: {failure}".partition("\n")[0][:300]
        return machine
    _measure_torch(machine, torch)
    return machine


def _measure_torch(machine: Machine, torch) -> None:
    from modules.memory import free_memory

    machine.torch, machine.cuda = torch.__version__, torch.version.cuda or torch.version.hip
    machine.has_mps = torch.backends.mps.is_available()
    free = free_memory(torch.device("cpu"))
    machine.memory = None if free is None else free * GIB
    if torch.cuda.is_available():
        machine.architectures = torch.cuda.get_arch_list()
        for number in range(torch.cuda.device_count()):
            name, capability = torch.cuda.get_device_name(number), torch.cuda.get_device_capability(number)
            try:
                free, total = torch.cuda.mem_get_info(number)
            except RuntimeError:  # another process may use the GPU alone
                free, total = 0, torch.cuda.get_device_properties(number).total_memory
            machine.gpus.append(Gpu(name, capability, total, free))


def _requirements(name: str) -> list[str]:
    """Return the requirements that a file names itself, without those of files that it includes."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("-")]


def _missing_packages(file: str) -> Iterator[str]:
    """Yield a clause for each package of a file, except PyTorch itself, that is missing or too old."""
    for requirement in _requirements(file):
        if requirement.startswith("torch>="):
            continue
        name = re.match(r"[\w.-]+", requirement)[0]
        found = [version for one in (name, *SAME_PACKAGE.get(name, ())) if (version := _version(one))]
        if not found:
            yield f"{name} is missing"
        elif not _fits(requirement, found[0]):
            yield f"{name} is {found[0]}, needed is {requirement.removeprefix(name)}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _fits(requirement: str, version: str) -> bool:
    try:
        from packaging.requirements import Requirement
    except ImportError:  # a requirement of matplotlib, so that other packages are missing too
        return True
    return Requirement(requirement).specifier.contains(version, prereleases=True)


def _driver() -> str:
    """Return name, driver version and memory of the first NVIDIA GPU as nvidia-smi prints them; empty without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS_FOR_DRIVER)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().partition("\n")[0] if done.returncode == 0 else ""


# -- judging ----------------------------------------------------------------------------------------------------------


def judge(machine: Machine) -> Iterator[Finding]:
    """Yield what is right and wrong about a machine."""
    yield _judge_python(machine)
    if machine.torch_error:
        yield error(f"PyTorch cannot be imported ({machine.torch_error})", INSTALL_TORCH)
    else:
        yield _judge_torch(machine)
        yield from _judge_gpus(machine)
    yield from _judge_packages(machine)  # after PyTorch, which they would install in another build
    yield from _judge_room(machine)
    if machine.read_only:
        yield error(
            f"no permission to write to {', '.join(machine.read_only)}",
            "make yourself the owner of the project's folder, or copy it to a place of yours",
        )
    yield ok(f"ffmpeg: {machine.ffmpeg or 'not installed; only m4a, mp4, aac, wma, webm and the like need it'}")
    if machine.encoding.lower().replace("-", "") == "utf8":
        yield ok("file names are UTF-8")
    else:
        yield warning(
            f"file names are in {machine.encoding}, so that names with other letters may fail",
            "set PYTHONUTF8=1 in the environment",
        )


def _judge_python(machine: Machine) -> Finding:
    version = ".".join(map(str, machine.python))
    oldest, newest = (".".join(map(str, pair)) for pair in (OLDEST_PYTHON, NEWEST_PYTHON))
    if machine.python < OLDEST_PYTHON:
        cure = f"install Python {newest}, and make a new virtual environment with it"
        return error(f"Python {version} is too old; {oldest} or later is needed", cure)
    if machine.python > NEWEST_PYTHON:
        return warning(f"Python {version} is newer than the tested versions, {oldest} to {newest}")
    return ok(f"Python {version} on {machine.system}")


def _judge_packages(machine: Machine) -> Iterator[Finding]:
    missing = machine.packages + (machine.training_packages if machine.has_data else [])
    if missing:
        yield error(f"packages: {'; '.join(missing)}", INSTALL)
    elif machine.training_packages:
        only = "packages that only preparation and training need"
        yield warning(f"{only}: {'; '.join(machine.training_packages)}", INSTALL)
    else:
        yield ok("all packages are installed")


def _judge_torch(machine: Machine) -> Finding:
    wanted = next(requirement for requirement in _requirements(TO_CONVERT) if requirement.startswith("torch>="))
    if not _fits(wanted, machine.torch.partition("+")[0]):
        return error(f"PyTorch {machine.torch} is too old; needed is {wanted}", INSTALL_TORCH)
    build = f"for CUDA {machine.cuda}" if machine.cuda else "for the CPU and MPS" if machine.has_mps else "for the CPU"
    return ok(f"PyTorch {machine.torch}, built {build}")


def _judge_gpus(machine: Machine) -> Iterator[Finding]:
    if not machine.gpus:
        yield _judge_absent_gpu(machine)
    for gpu in machine.gpus:
        name = f"{gpu.name}, {gpu.total / GIB:.0f} GiB ({gpu.free / GIB:.1f} free)"
        architecture = "sm_{}{}".format(*gpu.capability)
        if not supports(machine.architectures, gpu.capability):
            yield error(
                f"{name} is {architecture}, and this PyTorch is built for {' '.join(machine.architectures)}",
                INSTALL_TORCH,
            )
        elif gpu.total < LEAST_VRAM:
            yield warning(f"{name}: little memory for training", "python train.py --find_batch_size")
        elif gpu.free < gpu.total / 2:
            yield warning(f"{name}: other programs use most of it", "end them; nvidia-smi names them")
        else:
            yield ok(f"{name}, {architecture}")


def _judge_absent_gpu(machine: Machine) -> Finding:
    if not machine.driver:
        return ok(f"no NVIDIA GPU: the {'MPS device' if machine.has_mps else 'CPU'} is used")
    if machine.cuda is None:
        return error(f"the GPU ({machine.driver}) is not used, since this PyTorch has no CUDA", INSTALL_TORCH)
    return error(
        f"the GPU ({machine.driver}) is not usable by PyTorch for CUDA {machine.cuda}",
        "install a newer NVIDIA driver, or PyTorch for an older CUDA (pytorch.org)",
    )


def supports(architectures: list[str], capability: tuple[int, int]) -> bool:
    """Return whether a PyTorch built for these architectures runs on a GPU of this capability.

    Binary code (``sm_90``) runs on the same major version with the same or a higher minor one, and intermediate code
    (``compute_90``) on every newer one. Lists of other forms (ROCm) count as fitting.
    """
    found = [match for name in architectures if (match := re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", name))]
    if not found:
        return True
    for match in found:
        built = int(match[2]), int(match[3])
        if built <= capability and (match[1] == "compute" or built[0] == capability[0]):
            return True
    return False


def _judge_room(machine: Machine) -> Iterator[Finding]:
    if machine.memory is not None:
        free = f"{machine.memory / GIB:.1f} GiB of memory are free"
        if machine.memory < LEAST_MEMORY:
            yield warning(f"{free}; training and conversion need about {LEAST_MEMORY / GIB:.0f}", "end other programs")
        else:
            yield ok(free)
    if machine.disk is not None:
        free = f"{machine.disk / GIB:.1f} GiB of this disk are free"
        if machine.disk < LEAST_DISK:
            yield error(f"{free}; a checkpoint of the default model takes 1.2 GiB", "make room on the disk")
        elif machine.disk < GOOD_DISK:
            yield warning(
                f"{free}; training keeps several checkpoints of up to 1.2 GiB",
                "make room on the disk, or lower train.keep_ckpts",
            )
        else:
            yield ok(free)
