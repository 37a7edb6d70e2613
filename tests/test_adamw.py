"""modules/adamw.py: one kernel, the numbers and the files of PyTorch's own."""

import copy
import re
from types import SimpleNamespace

import pytest
import torch

from modules.adamw import AdamW, resume_optimizer


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


def widened(state):
    """A state whose first moments are those of a parameter with more rows."""
    state["state"][0]["exp_avg"] = torch.zeros(40, 3)


def expanded(state):
    """Moments of the right shape that share one number in memory."""
    state["state"][0]["exp_avg"] = torch.zeros(1).expand(4, 3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (widened, r"exp_avg is \[40, 3\] and its parameter \[4, 3\]"),
        (lambda state: state["param_groups"][0]["params"].append(2), r"groups of \[3\] parameters and the model has"),
        (lambda state: state["param_groups"].append(state["param_groups"][0]), "groups of"),
        (lambda state: state["state"][1].pop("exp_avg_sq"), "no moments"),
        (lambda state: state["state"][1].update(step=torch.zeros(7)), "no step count"),
        (lambda state: state["state"][1].update(exp_avg=torch.zeros(5, dtype=torch.long)), "floating-point"),
        (lambda state: state["state"][1].update(exp_avg=torch.zeros(5).to_sparse()), "layout"),
        (lambda state: state["param_groups"][0].update(lr=float("nan")), "not the state of an AdamW"),
        (lambda state: state.pop("param_groups"), "not the state of an AdamW"),
    ],
)
def test_moments_of_other_parameters_are_dropped_with_the_reason(change, reason, caplog):
    state = copy.deepcopy(stepped(AdamW)[1].state_dict())
    change(state)
    _, optimizer = stepped(AdamW, steps=0)
    with pytest.raises(ValueError, match=reason):
        optimizer.load_state_dict(state)
    assert not resume_optimizer(optimizer, state, "logs/44k/G_8.pth") and not optimizer.state
    assert "logs/44k/G_8.pth" in caplog.text and re.search(reason, caplog.text)


def test_moments_that_share_memory_are_copied_before_a_kernel_writes_to_them():
    state = copy.deepcopy(stepped(AdamW)[1].state_dict())
    expanded(state)
    weights, optimizer = stepped(AdamW, steps=0)
    optimizer.load_state_dict(state)
    assert optimizer.state[weights[0]]["exp_avg"].stride() == weights[0].stride()
