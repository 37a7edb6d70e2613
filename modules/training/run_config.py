"""Compare a run's stored configuration with the one to resume with.

A checkpoint loads with every configuration of the same shapes. With another speaker map, encoder or frame rate training
would go on, and for instance give one speaker's row to another.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modules.config.schema import Section
from modules.console import UserError


def refuse_another_model(config: Section, former: Section, path: Path, keys: Sequence[str]) -> None:
    """Raise UserError when ``config`` describes another model than the run's.

    Args:
        config: the configuration to train with.
        former: the run's stored configuration, read from ``path``.
        keys: dotted names whose values must be equal. Speakers may be added, but must keep their numbers.
    """
    changed = [
        f"{key} is {_value(former, key)!r} there and {_value(config, key)!r} now"
        for key in keys
        if _value(former, key) != _value(config, key)
    ]
    if any(config.spk.get(name) != number for name, number in former.spk.items()):
        changed.append(f"the speakers are {former.spk} there and {config.spk} now")
    if changed:
        raise UserError(
            f"the run's own configuration {path} is of another model: {'; '.join(changed)}. Put the former values "
            "back, or train under another name, with this run's newest model there as the base model of step 0"
        )


def _value(config: Section, key: str) -> Any:
    return functools.reduce(getattr, key.split("."), config)
