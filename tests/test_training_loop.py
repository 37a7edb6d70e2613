"""modules/training/loop.py: skipped steps are counted on the device."""

import torch

from modules.device import grad_scaler, update_scale
from modules.training.loop import SkippedSteps


def test_skipped_steps_are_counted_in_all_and_in_a_row():
    skipped = SkippedSteps(torch.device("cpu"))
    nan, inf, one = (torch.tensor(value) for value in (float("nan"), float("inf"), 1.0))
    for gradient, wanted in ((one, (0, 0)), (nan, (1, 1)), (inf, (2, 2)), (one, (2, 0)), (nan, (3, 1))):
        skipped.count(gradient)
        assert skipped.read() == wanted and skipped.known == wanted[0]


def test_the_scale_of_gradients_never_falls_below_one():
    scaler = grad_scaler(torch.device("cpu"), enabled=True)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], 0.1)
    for _ in range(40):
        optimizer.zero_grad()
        scaler.scale(weight.sum() * float("inf")).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        update_scale(scaler)
    assert scaler.get_scale() == 1 and weight.item() == 1
