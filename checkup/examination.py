"""The whole examination: all sections in the order of the work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from checkup.finding import ERROR, Finding, error, next_step, warning
from checkup.machine import INSTALL_AGAIN, Machine, judge
from checkup.project import Project
from modules.console import explain, failure
from modules.registry import Row

Report = dict[str, list[Finding]]  # section -> its findings

# Section -> its function, which takes a project and yields findings. They are imported late: each needs packages
# that may be missing.
SECTIONS = {
    "weights": Row("checkup.weights:check_weights"),
    "recordings": Row("checkup.clips:check_recordings"),
    "sound": Row("checkup.sound:check_sound"),
    "clips": Row("checkup.clips:check_clips"),
    "lists": Row("checkup.lists:check_lists"),
    "features": Row("checkup.features:check_features"),
    "training": Row("checkup.training:check_training"),
    "conversion": Row("checkup.conversion:check_conversion"),
}


def examine(project: Project, machine: Machine) -> Iterator[tuple[str, list[Finding]]]:
    """Yield each section's name and findings; the section about the sound only if it is to be drawn."""
    yield "machine", list(judge(machine))
    for section in SECTIONS:
        if section != "sound" or project.picture:
            yield section, _findings_of(section, project, machine)


def _findings_of(section: str, project: Project, machine: Machine) -> list[Finding]:
    """Run a section. What it could not check is its last finding."""
    findings: list[Finding] = []
    try:
        findings.extend(SECTIONS[section].load()(project))
    except ImportError as problem:
        what = f"not checked, since a package cannot be imported ({problem})"
        findings.append(warning(what) if _is_explained(problem, machine) else error(what, INSTALL_AGAIN))
    except Exception as problem:
        cure = "put that right, and run it again" if explain(problem) else "report it, with the lines above"
        findings.append(error(f"not checked: {failure(section, problem)}", cure))
    return findings


def _is_explained(problem: ImportError, machine: Machine) -> bool:
    """Return whether the machine's section has the cause of a failed import: no damaged package, but a missing one."""
    if machine.torch_error or machine.packages:
        return True
    return bool(machine.training_packages) and (machine.has_data or isinstance(problem, ModuleNotFoundError))


def as_json(report: Report) -> dict[str, Any]:
    """Return the report as JSON values."""
    findings = [finding for section in report.values() for finding in section]
    return {
        "sections": {name: [asdict(finding) for finding in section] for name, section in report.items()},
        "next": next_step(findings),
    }


def exit_code(report: Report) -> int:
    """Return 1 if something is wrong, else 0."""
    return int(any(finding.level == ERROR for section in report.values() for finding in section))
