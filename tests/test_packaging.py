"""pyproject.toml, the requirements files and the changelog say the same, and conversion needs no more than its list."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from modules.version import VERSION
from tests.test_svc import write_model, write_song

ROOT = Path(__file__).parents[1]
EXTRAS = sorted(
    path.stem.removeprefix("requirements-")
    for path in ROOT.glob("requirements-*.txt")
    if path.stem not in ("requirements-convert", "requirements-dev", "requirements-lock")
)


def project() -> dict:
    tomllib = pytest.importorskip("tomllib", reason="the standard library reads TOML from Python 3.11 on")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(name: str) -> list[str]:
    """The lines of a requirements file, without comments and without the files that it includes."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("-r ")]


def test_the_lists_of_pyproject_are_those_of_the_requirements_files():
    found = project()
    assert found["dependencies"] == requirements("requirements-convert.txt")
    wanted = {extra: requirements(f"requirements-{extra}.txt") for extra in EXTRAS}
    assert found["optional-dependencies"] == {"train": requirements("requirements.txt"), **wanted}


def test_the_lock_has_a_version_of_every_package_within_its_bounds():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    locked = dict(line.split("==") for line in requirements("requirements-lock.txt"))
    for path in ROOT.glob("requirements*.txt"):
        if path.stem != "requirements-lock":
            for line in requirements(path.name):
                wanted = Requirement(line)
                assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)]), line


def test_the_version_is_the_changelogs_newest():
    assert project()["version"] == VERSION
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == VERSION


@pytest.mark.parametrize("script", ["inference_main.py", "train.py", "resample.py"])
def test_every_script_tells_its_version(script):
    done = subprocess.run([sys.executable, ROOT / script, "--version"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, f"so-vits-svc {VERSION}")


def test_conversion_needs_only_what_its_list_names(tmp_path):
    """With the other packages of requirements.txt blocked, inference_main.py converts."""
    model, config = write_model(tmp_path)
    song = write_song(tmp_path / "song.wav", 1.0)
    blocked = [re.split(r"[<>=]", line)[0] for line in requirements("requirements.txt")]
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
sys.modules.update(dict.fromkeys({[*blocked, "sklearn", "transformers"]}))
import inference_main
sys.exit(inference_main.main(["-m", {str(model)!r}, "-c", {str(config)!r}, "-n", {str(song)!r}, "-t", "0", "-s", "alto",
                              "-f0p", "pm", "-d", "cpu"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "results").iterdir())
