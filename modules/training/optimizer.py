"""A fused, capturable AdamW whose state dicts are interchangeable with those of any AdamW."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from modules.console import UserError
from modules.training.checkpoint import is_dense


class AdamW(torch.optim.AdamW):
    """PyTorch's AdamW (Loshchilov and Hutter, https://arxiv.org/abs/1711.05101), fused where the device supports it.

    On a CUDA device the learning rate is a tensor there, which a replayed step reads (modules/cuda_graph.py).
    State dicts do not depend on the device. Loading one takes its moments and learning rate; betas, eps and weight
    decay stay this optimizer's own.
    """

    def __init__(self, parameters, lr: float, *args, **kwargs):
        parameters = list(parameters)
        self.rate = lr
        self.capturable = parameters[0].device.type == "cuda"
        if self.capturable:
            kwargs.update(capturable=True)
            lr = torch.tensor(lr, device=parameters[0].device)
        fused = None if parameters[0].device.type == "mps" else True  # the fused kernel of MPS ignores ``found_inf``
        super().__init__(parameters, lr, *args, fused=fused, **kwargs)
        self.fused = self.param_groups[0]["fused"]

    def set_rate(self, rate: float) -> None:
        """Set the learning rate from the next step on."""
        if rate == self.rate:
            return
        self.rate = rate
        for group in self.param_groups:
            if self.capturable:
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def state_dict(self) -> dict:
        content = super().state_dict()
        plain = {"lr": self.rate, "fused": None, "capturable": False}
        return {**content, "param_groups": [{**group, **plain} for group in content["param_groups"]]}

    def load_state_dict(self, state_dict: dict) -> None:
        """Copy the moments, their step counts and the learning rate; parameters without moments start afresh.

        Raises UserError, before changing anything, unless all of them fit this optimizer's parameters: the fused
        kernels do not compare sizes, and write past the end of moments that are smaller or not contiguous.
        """
        groups = _checked_groups(state_dict, self.param_groups)
        moments = state_dict["state"]
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        names = [name for group in groups for name in group["params"]]
        fitting = {
            number: _checked_moments(moments[name], parameter, number)
            for number, (name, parameter) in enumerate(zip(names, parameters, strict=True))
            if name in moments and moments[name] != {}
        }
        own = super().state_dict()["param_groups"]
        rates = [group["lr"] for group in self.param_groups]  # CUDA graphs read these very tensors
        kept = [{name: group[name] for name in ("lr", "initial_lr") if name in group} for group in groups]
        super().load_state_dict(
            {"state": fitting, "param_groups": [mine | theirs for mine, theirs in zip(own, kept, strict=True)]}
        )
        rate = float(self.param_groups[0]["lr"])
        for group, same in zip(self.param_groups, rates, strict=True):
            group["lr"] = same
        self.rate = None
        self.set_rate(rate)

    def step_scaled(self, scaler, norm: Tensor) -> None:
        """Make a step on gradients that ``scaler`` (a GradScaler, maybe disabled) has unscaled, unless their ``norm``
        (0-dimensional) is not finite."""
        if scaler.is_enabled():
            scaler.step(self)
        else:
            self.step_unless(~norm.isfinite())

    def step_unless(self, bad: Tensor) -> None:
        """Make a step that changes nothing if ``bad`` (0-dimensional, bool) is true.

        A fused optimizer decides on the device, so the program does not wait.
        """
        if not self.fused:
            if not bad:
                self.step()
            return
        self.found_inf = bad.float()
        try:
            self.step()
        finally:
            del self.found_inf


def _checked_groups(state: dict, own: list[dict]) -> list[dict]:
    """Return the parameter groups of a state dict. Raises UserError unless they are as long as the ``own`` groups."""
    groups = state.get("param_groups") if isinstance(state, dict) else None
    if not isinstance(groups, list) or not isinstance(state.get("state"), dict):
        raise UserError("it is no optimizer's state")
    if not all(isinstance(group, dict) and isinstance(group.get("params"), list) for group in groups):
        raise UserError("its parameter groups name no parameters")
    sizes, own_sizes = [len(group["params"]) for group in groups], [len(group["params"]) for group in own]
    if sizes != own_sizes:
        raise UserError(f"it is for {_sizes(sizes)}, and the model has {_sizes(own_sizes)}")
    if not all(isinstance(name, int) for group in groups for name in group["params"]):
        raise UserError("its parameters have no numbers")
    for group in groups:
        for name in ("lr", "initial_lr"):
            if name in group and _number(group[name]) is None:
                raise UserError(f"its {name} is no number")
    return groups


def _sizes(sizes: list[int]) -> str:
    return f"{sum(sizes)} parameters in {len(sizes)} groups" if len(sizes) != 1 else f"{sizes[0]} parameters"


def _checked_moments(moments: dict, parameter: Tensor, number: int) -> dict[str, Tensor]:
    """Copy the moments of a parameter to its memory layout. Raises UserError when they do not fit it."""
    step = _number(moments.get("step")) if isinstance(moments, dict) else None
    if step is None:
        raise UserError(f"parameter {number} has no count of steps")
    copies = {"step": torch.tensor(step, dtype=torch.float32)}
    for name in ("exp_avg", "exp_avg_sq"):
        moment = moments.get(name)
        if not is_dense(moment) or not moment.is_floating_point():
            raise UserError(f"{name} of parameter {number} is missing or no tensor of numbers")
        if moment.shape != parameter.shape:
            shapes = f"{list(moment.shape)}, and the parameter {list(parameter.shape)}"
            raise UserError(f"{name} of parameter {number} is {shapes}")
        copies[name] = torch.empty_like(parameter, requires_grad=False).copy_(moment)
        if not copies[name].isfinite().all() or (name == "exp_avg_sq" and (moment < 0).any()):
            raise UserError(f"{name} of parameter {number} is not finite or is negative")
    return copies


def _number(value: Any) -> float | None:
    """Return a finite, non-negative number, or a tensor of one, as a float; None for anything else."""
    if is_dense(value) and value.numel() == 1 and not value.is_complex():
        value = value.item()
    return float(value) if isinstance(value, int | float) and 0 <= value < math.inf else None


def gradient_norm(network: nn.Module) -> Tensor:
    """Return the Euclidean norm of all gradients together, 0-dimensional; does not wait for the device."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
