"""modules/training/optimizer.py: the results and state dicts of PyTorch's AdamW."""

import copy
from types import SimpleNamespace

import pytest
import torch

from modules.console import UserError
from modules.training.optimizer import AdamW


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


def test_steps_equal_those_of_the_plain_optimizer():
    for ours, plain in zip(stepped(AdamW)[0], stepped(torch.optim.AdamW)[0], strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_state_dicts_are_interchangeable_and_keep_each_optimizers_options():
    states = {kind: stepped(kind)[1].state_dict() for kind in (AdamW, torch.optim.AdamW)}
    ours, plain = states[AdamW], states[torch.optim.AdamW]
    assert ours["param_groups"] == plain["param_groups"]
    torch.testing.assert_close(ours["state"], plain["state"], rtol=1e-5, atol=1e-6)
    results = [stepped(kind, state=state)[0] for kind in states for state in states.values()]
    for weights in results[1:]:
        torch.testing.assert_close(weights, results[0], rtol=1e-5, atol=1e-6)
    _, continued = stepped(AdamW, state=plain)
    assert continued.param_groups[0]["fused"] == AdamW([torch.zeros(1, requires_grad=True)], 1e-2).fused


def test_a_state_dict_sets_rate_and_moments_but_not_the_configured_options():
    state = stepped(AdamW)[1].state_dict()
    weights = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(5))]
    optimizer = AdamW(weights, 0.5, (0.5, 0.9), 1e-3, weight_decay=0.125)
    optimizer.load_state_dict(state)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (1e-2, (0.5, 0.9), 1e-3, 0.125)
    assert optimizer.rate == 1e-2 and torch.equal(optimizer.state[weights[0]]["exp_avg"], state["state"][0]["exp_avg"])
    optimizer.set_rate(0.25)
    assert group["lr"] == optimizer.state_dict()["param_groups"][0]["lr"] == 0.25


def with_moment(name, moment):
    state = copy.deepcopy(stepped(torch.optim.AdamW)[1].state_dict())
    state["state"][0][name] = moment
    return state


def with_group(**changes):
    state = stepped(torch.optim.AdamW)[1].state_dict()
    return {**state, "param_groups": [state["param_groups"][0] | changes]}


UNFIT = {
    "a narrower table": (with_moment("exp_avg", torch.zeros(2, 3)), r"exp_avg of parameter 0 is \[2, 3\], .* \[4, 3\]"),
    "turned": (with_moment("exp_avg_sq", torch.zeros(3, 4)), "exp_avg_sq of parameter 0"),
    "no moment": (with_moment("exp_avg", None), "exp_avg of parameter 0 is missing"),
    "sparse": (with_moment("exp_avg", torch.zeros(4, 3).to_sparse()), "exp_avg of parameter 0"),
    "without content": (with_moment("exp_avg", torch.zeros(4, 3, device="meta")), "exp_avg of parameter 0"),
    "whole numbers": (with_moment("exp_avg", torch.zeros(4, 3, dtype=torch.long)), "exp_avg of parameter 0"),
    "not finite": (with_moment("exp_avg", torch.full((4, 3), torch.nan)), "exp_avg of parameter 0 is not finite"),
    "a negative square": (with_moment("exp_avg_sq", torch.full((4, 3), -1.0)), "exp_avg_sq of parameter 0"),
    "many steps": (with_moment("step", torch.zeros(4)), "parameter 0 has no count of steps"),
    "a step below zero": (with_moment("step", -1), "parameter 0 has no count of steps"),
    "another optimizer's": ({**with_group(), "state": {0: {"momentum_buffer": torch.zeros(4, 3)}}}, "count of steps"),
    "fewer parameters": (with_group(params=[0]), "it is for 1 parameters, and the model has 2 parameters"),
    "two groups": ({**with_group(), "param_groups": with_group()["param_groups"] * 2}, "4 parameters in 2 groups"),
    "no groups": ({"state": {}, "param_groups": []}, "0 parameters in 0 groups"),
    "no numbers": (with_group(params=[[], []]), "no numbers"),
    "no rate": (with_group(lr="fast"), "lr is no number"),
    "no state": ({"weights": {}}, "no optimizer's state"),
    "a tensor": (torch.zeros(3), "no optimizer's state"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(kind):
    state, reason = UNFIT[kind]
    _, optimizer = stepped(AdamW)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(UserError, match=reason):
        optimizer.load_state_dict(state)
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)


def test_moments_are_copied_into_separate_memory():
    """A file may hold a tensor of the right shape over one number, or two moments over the same memory."""
    shared, one = torch.full((4, 3), 0.25), torch.tensor(0.25)
    results = []
    for moments in ((shared, shared), (one.expand(4, 3), one.expand(4, 3)), (shared.t().clone().t(), shared.clone())):
        state = with_moment("exp_avg", moments[0])
        state["state"][0]["exp_avg_sq"] = moments[1]
        weights, optimizer = stepped(AdamW, state=state)
        (loaded,) = (optimizer.state[weight] for weight in weights[:1])
        assert loaded["exp_avg"].is_contiguous() and loaded["exp_avg"].data_ptr() != loaded["exp_avg_sq"].data_ptr()
        results.append(weights)
    for weights in results[1:]:
        torch.testing.assert_close(weights, results[0], rtol=0, atol=0)


def test_a_files_options_do_not_change_the_step():
    plain = stepped(AdamW, state=with_group())[0]
    strange = with_group(amsgrad=True, maximize=True, differentiable=True, foreach=True, betas=(9, 9))
    torch.testing.assert_close(stepped(AdamW, state=strange)[0], plain, rtol=0, atol=0)


@pytest.mark.parametrize("step", [3, 3.0, torch.tensor([3]), torch.tensor(3.0, dtype=torch.float64)])
def test_a_count_of_steps_may_be_any_single_number(step):
    expected = stepped(AdamW, state=with_group())[0]
    torch.testing.assert_close(stepped(AdamW, state=with_moment("step", step))[0], expected)


@pytest.mark.parametrize(("kind", "fused"), [("cpu", True), ("mps", None)])
def test_the_fused_kernel_is_used_if_it_supports_found_inf(kind, fused, monkeypatch):
    asked = []

    def constructed(optimizer, parameters, lr, **options):
        asked.append(options["fused"])
        optimizer.param_groups = [options]

    monkeypatch.setattr(torch.optim.AdamW, "__init__", constructed)
    AdamW([SimpleNamespace(device=torch.device(kind))], 1e-2)
    assert asked == [fused]


def test_step_unless_makes_a_step_or_changes_nothing():
    weights, optimizer = stepped(AdamW)
    before = [weight.clone() for weight in weights], {k: dict(v) for k, v in optimizer.state_dict()["state"].items()}
    steps = float(optimizer.state[weights[0]]["step"])
    optimizer.step_unless(torch.tensor(True))
    torch.testing.assert_close((weights, optimizer.state_dict()["state"]), before, rtol=0, atol=0)
    assert float(optimizer.state[weights[0]]["step"]) == steps
    optimizer.step_unless(torch.tensor(False))
    assert float(optimizer.state[weights[0]]["step"]) == steps + 1
    assert not torch.equal(weights[0], before[0][0])
