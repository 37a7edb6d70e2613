"""AdamW in one kernel where the device has it, with state dicts that any AdamW reads and that read any AdamW's."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
        names = ("betas", "eps", "weight_decay", "fused", "foreach", "capturable")
        own = {name: self.param_groups[0][name] for name in names}
        rates = [group["lr"] for group in self.param_groups]  # recordings know these very tensors
        super().load_state_dict(
            {**state_dict, "param_groups": [{**group, **own} for group in state_dict["param_groups"]]}
        )
        rate = self.param_groups[0]["lr"]
        for group, kept in zip(self.param_groups, rates, strict=True):
            group["lr"] = kept
        self.rate = None
        self.set_rate(rate)

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


def gradient_norm(network: nn.Module) -> Tensor:
    """The Euclidean norm of all gradients together, 0-dimensional; not waited for."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
