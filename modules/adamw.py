"""AdamW in one kernel where the device has it, with state dicts that any AdamW reads and that read any AdamW's."""

from __future__ import annotations

import torch
from torch import Tensor


class AdamW(torch.optim.AdamW):
    """PyTorch's own (Loshchilov and Hutter, https://arxiv.org/abs/1711.05101), fused where this PyTorch can.

    State dicts do not say that it was fused: a file from here works on machines that cannot, and the other way round.
    """

    def __init__(self, parameters, *args, **kwargs):
        parameters = list(parameters)
        try:
            super().__init__(parameters, *args, fused=True, **kwargs)
        except RuntimeError:  # not for this device, or not in this version
            super().__init__(parameters, *args, **kwargs)
        self.fused = self.param_groups[0]["fused"]

    def state_dict(self) -> dict:
        content = super().state_dict()
        return {**content, "param_groups": [{**group, "fused": None} for group in content["param_groups"]]}

    def load_state_dict(self, state_dict: dict) -> None:
        groups = [{**group, "fused": self.fused, "foreach": None} for group in state_dict["param_groups"]]
        super().load_state_dict({**state_dict, "param_groups": groups})

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
