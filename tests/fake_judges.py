"""Stand-ins for the judges' process of a training run; this module imports nothing heavy, so they start soon."""

from __future__ import annotations

import json
import time
from pathlib import Path

from vits.judging import RESULT


def give(folder, speakers, encoder, figures, notes=()):
    """Write these figures, as the judges do."""
    (Path(folder) / RESULT).write_text(json.dumps({"figures": figures, "notes": list(notes)}), encoding="utf-8")


def give_when_allowed(folder, speakers, encoder, allowed):
    """Wait for a file; the figures depend on how many such processes were before."""
    while not Path(allowed).exists():
        time.sleep(0.01)
    give(folder, speakers, encoder, {"per": 0.5, "similarity": 0.5, "cer": 0.25})


def fall(folder, speakers, encoder, counter):
    """Give a better score from process to process, up to the second."""
    number = len(Path(counter).read_text(encoding="utf-8"))
    Path(counter).write_text("x" * (number + 1), encoding="utf-8")
    give(folder, speakers, encoder, {"per": [0.9, 0.3, 0.6][number], "similarity": 0.5})


def fail(folder, speakers, encoder):
    raise SystemExit(3)
