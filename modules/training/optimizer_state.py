"""Load the states of optimizer and loss scaler from a checkpoint; drop with a warning what does not fit.

Training then goes on with a fresh optimizer or loss scale: the weights are worth more than an exact resume.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from modules.console import UserError, get_logger
from modules.training.optimizer import AdamW

log = get_logger("checkpoint")


def load_optimizer(optimizer: AdamW, state: Any, where: Path) -> None:
    """Load the state that the file ``where`` holds. If it holds none, or one that does not fit, log the reason."""
    if state is None or (isinstance(state, dict) and not state.get("state")):
        log.warning("%s comes without its optimizer's state, so the optimizer starts afresh", where)
        return
    try:
        optimizer.load_state_dict(state)
    except UserError as reason:
        log.warning(
            "the optimizer's state in %s does not fit and is dropped (%s); the weights are kept, the optimizer starts "
            "afresh", where, reason,
        )  # fmt: skip


def load_scaler(scaler: Any, state: Any, where: Path) -> None:
    """Load a GradScaler's state from the file ``where``. It is empty if fp16 was off; drop an invalid one with a
    warning."""
    if not state or not scaler.is_enabled():
        return
    names = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")
    numbers = [state.get(name) for name in names] if isinstance(state, dict) else [None]
    if all(isinstance(number, int | float) and 0 <= number < math.inf for number in numbers) and all(numbers[:4]):
        scaler.load_state_dict(state)
    else:
        log.warning("%s holds no loss scale of fp16 training, so the loss scale starts afresh", where)
