"""modules/adamw.py: one kernel, the numbers and the files of PyTorch's own."""

import copy
from types import SimpleNamespace

import pytest
import torch

from modules.adamw import AdamW


def stepped(kind, steps=3, state=None):
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(5))]
    optimizer = kind(weights, 1e-2, (0.8, 0.99), 1e-9)
    if state is not None:
        optimizer.load_state_dict(copy.deepcopy(state))
    for _ in range(steps):
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        optimizer.step()
    return weights, optimizer


def test_steps_are_those_of_the_plain_optimizer():
    for ours, plain in zip(stepped(AdamW)[0], stepped(torch.optim.AdamW)[0], strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_state_dicts_go_both_ways_and_keep_each_optimizer_as_it_is():
    states = {kind: stepped(kind)[1].state_dict() for kind in (AdamW, torch.optim.AdamW)}
    ours, plain = states[AdamW], states[torch.optim.AdamW]
    assert ours["param_groups"] == plain["param_groups"]
    torch.testing.assert_close(ours["state"], plain["state"], rtol=1e-5, atol=1e-6)
    results = [stepped(kind, state=state)[0] for kind in states for state in states.values()]
    for weights in results[1:]:
        torch.testing.assert_close(weights, results[0], rtol=1e-5, atol=1e-6)
    _, continued = stepped(AdamW, state=plain)
    assert continued.param_groups[0]["fused"] == AdamW([torch.zeros(1, requires_grad=True)], 1e-2).fused


def test_a_state_dict_brings_the_rate_and_moments_and_leaves_the_configurations_numbers():
    state = stepped(AdamW)[1].state_dict()
    weights = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(5))]
    optimizer = AdamW(weights, 0.5, (0.5, 0.9), 1e-3, weight_decay=0.125)
    optimizer.load_state_dict(state)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (1e-2, (0.5, 0.9), 1e-3, 0.125)
    assert optimizer.rate == 1e-2 and torch.equal(optimizer.state[weights[0]]["exp_avg"], state["state"][0]["exp_avg"])
    optimizer.set_rate(0.25)
    assert group["lr"] == optimizer.state_dict()["param_groups"][0]["lr"] == 0.25


@pytest.mark.parametrize(("kind", "fused"), [("cpu", True), ("mps", None)])
def test_the_fused_kernel_is_used_where_it_heeds_what_is_not_finite(kind, fused, monkeypatch):
    asked = []

    def constructed(optimizer, parameters, lr, **options):
        asked.append(options["fused"])
        optimizer.param_groups = [options]

    monkeypatch.setattr(torch.optim.AdamW, "__init__", constructed)
    AdamW([SimpleNamespace(device=torch.device(kind))], 1e-2)
    assert asked == [fused]


def test_a_step_unless_bad_is_taken_or_leaves_weights_and_state_alone():
    weights, optimizer = stepped(AdamW)
    before = [weight.clone() for weight in weights], {k: dict(v) for k, v in optimizer.state_dict()["state"].items()}
    steps = float(optimizer.state[weights[0]]["step"])
    optimizer.step_unless(torch.tensor(True))
    torch.testing.assert_close((weights, optimizer.state_dict()["state"]), before, rtol=0, atol=0)
    assert float(optimizer.state[weights[0]]["step"]) == steps
    optimizer.step_unless(torch.tensor(False))
    assert float(optimizer.state[weights[0]]["step"]) == steps + 1
    assert not torch.equal(weights[0], before[0][0])
