"""What a check finds: something right, doubtful or wrong, and the command that cures it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass

OK, WARNING, ERROR = "ok", "warning", "error"
NAMES_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        level: OK, WARNING or ERROR.
        what: the fact, as a clause.
        cure: the next command or action; empty if there is nothing to do. With OK it is the next step of the work.
    """

    level: str
    what: str
    cure: str = ""


def ok(what: str, next_step: str = "") -> Finding:
    """Return a finding that nothing is wrong; ``next_step`` is the command of a stage that was not run yet."""
    return Finding(OK, what, next_step)


def warning(what: str, cure: str = "") -> Finding:
    """Return a finding of something that is doubtful, or that harms only some uses."""
    return Finding(WARNING, what, cure)


def error(what: str, cure: str) -> Finding:
    """Return a finding of something that is wrong."""
    return Finding(ERROR, what, cure)


def counted(items: Sequence[object], noun: str) -> str:
    """Return the count and the first names: ``7 clips (a.wav, b.wav, c.wav, ...)``."""
    names = ", ".join(map(str, items[:NAMES_SHOWN])) + (", ..." if len(items) > NAMES_SHOWN else "")
    return f"{number_of(items, noun)} ({names})"


def number_of(items: Sized, noun: str) -> str:
    """Return the count with its noun: ``1 clip``, ``2 clips``."""
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def conclusion(findings: Sequence[Finding]) -> str:
    """Return the last line of the report."""
    if step := next_step(findings):
        return f"next: {step}"
    return "nothing is wrong" if all(finding.level == OK for finding in findings) else "no error, but warnings"


def next_step(findings: Sequence[Finding]) -> str:
    """Return the one thing to do next: the first cure of an error, else the first stage not yet run, else the first
    cure of a warning; empty if there is nothing to do."""
    for level in (ERROR, OK, WARNING):
        for finding in findings:
            if finding.level == level and finding.cure:
                return finding.cure
    return ""


@contextlib.contextmanager
def warnings_as_findings(findings: list[Finding], cure: str) -> Iterator[None]:
    """Add the warnings that the program logs within the block to ``findings`` instead of printing them."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                findings.append(warning(record.getMessage(), cure))

    logger, collector = logging.getLogger("svc"), Collector()
    propagate = logger.propagate
    logger.addHandler(collector)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate
