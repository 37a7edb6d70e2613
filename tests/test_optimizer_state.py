"""modules/training/optimizer_state.py: a state that does not fit is dropped with a warning."""

from pathlib import Path

import pytest
import torch

from modules.training.optimizer import AdamW
from modules.training.optimizer_state import load_optimizer, load_scaler

SCALE = {"scale": 8.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 10, "_growth_tracker": 0}


@pytest.mark.parametrize("state", [None, {}, {"state": {}, "param_groups": []}])
def test_a_model_without_its_optimizer_is_a_warning(state, caplog):
    load_optimizer(AdamW([torch.zeros(1, requires_grad=True)], 1e-2), state, Path("G_8.pth"))
    assert "G_8.pth comes without its optimizer's state" in caplog.text


def test_a_loss_scale_is_loaded_if_fp16_is_on():
    for enabled, scale in ((True, 8.0), (False, 1.0)):
        scaler = torch.amp.GradScaler("cpu", enabled=enabled)
        load_scaler(scaler, SCALE, Path("state_8.pth"))
        assert scaler.get_scale() == scale


@pytest.mark.parametrize("change", [{"scale": float("nan")}, {"scale": 0}, {"growth_interval": torch.ones(2)}, None])
def test_an_invalid_loss_scale_is_dropped(change, caplog):
    scaler = torch.amp.GradScaler("cpu", enabled=True)
    before = scaler.get_scale()
    load_scaler(scaler, "large" if change is None else SCALE | change, Path("state_8.pth"))
    assert scaler.get_scale() == before and "state_8.pth holds no loss scale" in caplog.text
    load_scaler(scaler, {}, Path("state_8.pth"))
