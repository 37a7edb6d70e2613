"""AdamW in one kernel where the device has it, with state dicts that any AdamW reads and that read any AdamW's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modules.console import get_logger

log = get_logger("optimizer")

MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamW(torch.optim.AdamW):
    """PyTorch's own (Loshchilov and Hutter, https://arxiv.org/abs/1711.05101), fused where this PyTorch can.

    On a CUDA device the learning rate is a tensor there, so that a recorded step (modules/recording.py) obeys it.
    State dicts say nothing of all that: a file from here works on machines that cannot, and the other way round. Of a
    state dict the moments are taken and the learning rate; betas, eps and weight decay stay this optimizer's own.
    """

    def __init__(self, parameters, lr: float, *args, **kwargs):
        parameters = list(parameters)
        self.rate = lr
        self.recordable = parameters[0].device.type == "cuda"
        if self.recordable:
            kwargs.update(capturable=True)
            lr = torch.tensor(lr, device=parameters[0].device)
        try:
            fused = None if parameters[0].device.type == "mps" else True  # MPS's ignores ``found_inf``
            super().__init__(parameters, lr, *args, fused=fused, **kwargs)
        except RuntimeError:  # not for this device, or not in this version
            super().__init__(parameters, lr, *args, **kwargs)
        self.fused = self.param_groups[0]["fused"]

    def set_rate(self, rate: float) -> None:
        """The learning rate from the next step on."""
        if rate == self.rate:
            return
        self.rate = rate
        for group in self.param_groups:
            if self.recordable:
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def state_dict(self) -> dict:
        content = super().state_dict()
        plain = {"lr": self.rate, "fused": None, "capturable": False}
        return {**content, "param_groups": [{**group, **plain} for group in content["param_groups"]]}

    def load_state_dict(self, state_dict: dict) -> None:
        """Load the moments and the learning rate. Raises ValueError, and changes nothing, when they do not fit.

        The fused kernel trusts the moments' sizes, so each is compared with its parameter and copied to its layout.
        """
        if reason := self.misfit(state_dict):
            raise ValueError(reason)
        names = ("betas", "eps", "weight_decay", "fused", "foreach", "capturable")
        own = {name: self.param_groups[0][name] for name in names}
        rates = [group["lr"] for group in self.param_groups]  # recordings know these very tensors
        groups = [{**group, **own} for group in state_dict["param_groups"]]
        super().load_state_dict({"state": self._own_layout(state_dict), "param_groups": groups})
        rate = self.param_groups[0]["lr"]
        for group, kept in zip(self.param_groups, rates, strict=True):
            group["lr"] = kept
        self.rate = None
        self.set_rate(rate)

    def misfit(self, state_dict: Any) -> str | None:
        """Return why a state dict is not one of this optimizer's parameters; None if it is."""
        groups = state_dict.get("param_groups") if isinstance(state_dict, dict) else None
        state = state_dict.get("state") if isinstance(state_dict, dict) else None
        if not isinstance(state, dict) or not isinstance(groups, list) or not all(map(_is_group, groups)):
            return "it is not the state of an AdamW"
        found, own = ([len(group["params"]) for group in some] for some in (groups, self.param_groups))
        if found != own:
            return f"it has groups of {found} parameters and the model has {own}"
        for parameter, entry in self._entries(state_dict):
            if entry is not None and (reason := _misfit_of_entry(entry, parameter)):
                return reason
        return None

    def _entries(self, state_dict: dict) -> list[tuple[nn.Parameter, Any]]:
        """Every parameter with its entry in a state dict, None if there is none."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        return [(parameter, state_dict["state"].get(n)) for parameter, n in zip(parameters, numbers, strict=True)]

    def _own_layout(self, state_dict: dict) -> dict[int, dict[str, Tensor]]:
        """The state with nothing but moments and step counts, the moments in the memory layout of their parameters."""
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        return {
            number: {"step": torch.as_tensor(entry["step"], dtype=torch.float32).reshape(())}
            | {name: torch.empty_like(parameter).copy_(entry[name]) for name in MOMENTS}
            for number, (parameter, entry) in zip(numbers, self._entries(state_dict), strict=True)
            if entry is not None
        }

    def step_scaled(self, scaler, norm: Tensor) -> None:
        """A step on gradients that ``scaler``, a GradScaler that may be off, has unscaled: none where their ``norm``
        (0-dimensional) is not finite."""
        if scaler.is_enabled():
            scaler.step(self)
        else:
            self.step_unless(~norm.isfinite())

    def step_unless(self, bad: Tensor) -> None:
        """A step that leaves everything as it is where ``bad`` (0-dimensional, bool) is true.

        A fused optimizer decides on the device, and nothing waits for it.
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


def resume_optimizer(optimizer: AdamW, state_dict: Any, path: Path) -> bool:
    """Load the optimizer's state of the checkpoint ``path``. Returns whether it fits; if not, logs why and drops it."""
    if not state_dict:
        reason = "it has none"
    elif (reason := optimizer.misfit(state_dict)) is None:
        optimizer.load_state_dict(state_dict)
        return True
    log.warning("the optimizer's state of %s is not used, it starts afresh: %s", path, reason)
    return False


def _is_group(group: Any) -> bool:
    if not isinstance(group, dict) or not isinstance(group.get("params"), list):
        return False
    rate = group.get("lr")
    is_number = isinstance(rate, int | float) or (isinstance(rate, Tensor) and rate.numel() == 1)
    return is_number and 0 <= float(rate) < float("inf") and all(isinstance(n, int) for n in group["params"])


def _misfit_of_entry(entry: Any, parameter: Tensor) -> str | None:
    """Return why the moments of one parameter cannot be its own; None if they can."""
    if not isinstance(entry, dict) or not all(isinstance(entry.get(name), Tensor) for name in MOMENTS):
        return "a parameter has no moments (exp_avg, exp_avg_sq)"
    step = entry.get("step")
    if not isinstance(step, int | float) and not (isinstance(step, Tensor) and step.numel() == 1):
        return "a parameter has no step count"
    for name in MOMENTS:
        moment = entry[name]
        if moment.shape != parameter.shape:
            return f"a {name} is {list(moment.shape)} and its parameter {list(parameter.shape)}"
        if moment.layout != torch.strided or not moment.is_floating_point():
            return f"a {name} holds {moment.dtype} in layout {moment.layout}, not plain floating-point numbers"
    return None


def gradient_norm(network: nn.Module) -> Tensor:
    """The Euclidean norm of all gradients together, 0-dimensional; not waited for."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
