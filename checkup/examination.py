"""The whole examination: all sections in the order of the work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from checkup.finding import ERROR, Finding, error, next_step, warning
from checkup.machine import Machine, judge
from checkup.project import Project
from modules.console import explain, failure

Report = dict[str, list[Finding]]  # section -> its findings


def examine(project: Project, machine: Machine, picture: Path | None = None) -> Iterator[tuple[str, list[Finding]]]:
    """Yield each section's name and findings. With ``picture``, a section about the sound is added, which writes it."""

    def recordings() -> Iterable[Finding]:
        from checkup.clips import check_recordings

        return check_recordings(project, machine.ffmpeg is not None)

    def weights() -> Iterable[Finding]:
        from checkup.weights import check_weights

        return check_weights(project)

    def clips() -> Iterable[Finding]:
        from checkup.clips import check_clips

        return check_clips(project, machine.ffmpeg is not None)

    def lists() -> Iterable[Finding]:
        from checkup.lists import check_lists

        return check_lists(project)

    def features() -> Iterable[Finding]:
        from checkup.features import check_features

        return check_features(project)

    def training() -> Iterable[Finding]:
        from checkup.training import check_training

        return check_training(project)

    def conversion() -> Iterable[Finding]:
        from checkup.conversion import check_conversion

        return check_conversion(project)

    def sound() -> Iterable[Finding]:
        from checkup.sound import check_sound

        return check_sound(project, picture)

    yield "machine", list(judge(machine))
    of_sound = [sound] if picture else []
    for section in (weights, recordings, *of_sound, clips, lists, features, training, conversion):
        yield section.__name__, _findings_of(section)


def _findings_of(section: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Run a section. What it could not check is its last finding."""
    findings: list[Finding] = []
    try:
        findings.extend(section())
    except ImportError as problem:  # the machine's section says it, too
        findings.append(warning(f"not checked, since a package cannot be imported ({problem})"))
    except Exception as problem:
        cure = "put that right, and run it again" if explain(problem) else "report it, with the lines above"
        findings.append(error(f"not checked: {failure(section.__name__, problem)}", cure))
    return findings


def as_json(report: Report) -> dict:
    """Return the report as JSON values."""
    findings = [finding for section in report.values() for finding in section]
    return {
        "sections": {name: [asdict(finding) for finding in section] for name, section in report.items()},
        "next": next_step(findings),
    }


def exit_code(report: Report) -> int:
    """Return 1 if something is wrong, else 0."""
    return int(any(finding.level == ERROR for section in report.values() for finding in section))
