from __future__ import annotations

import copy

import pytest
import torch

from modules.config import ModelConfig
from vits.flow import Coupling, Flow

FRAMES = 20
KINDS = {
    "convolutional": {},
    "depthwise": {"use_depthwise_conv": True},
    "shared": {"flow_share_parameter": True},
    "shared depthwise": {"flow_share_parameter": True, "use_depthwise_conv": True},
    "transformer": {"use_transformer_flow": True},
    "shared transformer": {"use_transformer_flow": True, "flow_share_parameter": True},
}


def build(seed: int = 3, **changes) -> Flow:
    torch.manual_seed(seed)
    sizes = {"inter_channels": 12, "hidden_channels": 8, "filter_channels": 16, "gin_channels": 4, "p_dropout": 0.0}
    flow = Flow(ModelConfig(**{**sizes, "n_flow_layer": 2, "n_layers_trans_flow": 2, **changes}))
    for name, parameter in flow.named_parameters():
        if ".post." in name:  # initially zero: the flow would be the identity and hide mistakes
            torch.nn.init.normal_(parameter, std=0.3)
    return flow


def couplings(flow: Flow) -> list[Coupling]:
    return [part for part in flow.flows if isinstance(part, Coupling)]


def inputs(per_frame: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    mask = torch.ones(2, 1, FRAMES)
    mask[1, :, 13:] = 0
    z = torch.randn(2, 12, FRAMES, generator=generator) * mask
    return z, mask, torch.randn(2, 4, FRAMES if per_frame else 1, generator=generator)


def test_a_coupling_adds_its_shift_forward_and_subtracts_it_in_reverse():
    """Mean-only coupling as in VITS: the first half of the channels stays, the second has m(first) added."""
    coupling = couplings(build())[0]
    torch.nn.init.zeros_(coupling.post.weight)
    torch.nn.init.constant_(coupling.post.bias, 0.5)
    z, mask, g = inputs()
    for reverse, sign in ((False, 1), (True, -1)):
        shift = coupling(z, mask, g, reverse) - z
        assert not shift[:, :6].any()
        torch.testing.assert_close(shift[:, 6:], (sign * 0.5 * mask).expand(2, 6, FRAMES))


@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_reverse_undoes_forward(kind, per_frame):
    flow = build(**KINDS[kind])
    z, mask, g = inputs(per_frame)
    there = flow(z, mask, g)
    assert (there - z).abs().max() > 0.1 and not (there * (1 - mask)).any()
    torch.testing.assert_close(flow(there, mask, g, reverse=True), z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_speaker_has_an_effect_and_a_per_frame_condition_may_be_constant(kind):
    flow = build(**KINDS[kind])
    z, mask, g = inputs()
    once = flow(z, mask, g)
    torch.testing.assert_close(flow(z, mask, g.expand(-1, -1, FRAMES)), once, rtol=1e-4, atol=1e-5)
    assert (flow(z, mask, g + 1) - once).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_flow_only_flips(kind):
    flow = build(**KINDS[kind])
    for coupling in couplings(flow):
        torch.nn.init.zeros_(coupling.post.weight)
        torch.nn.init.zeros_(coupling.post.bias)
    z, mask, g = inputs()
    assert torch.equal(flow(z, mask, g), z if len(couplings(flow)) % 2 == 0 else z.flip(1))


def test_n_flow_layer_is_the_depth_of_four_convolutional_couplings_and_the_number_of_transformer_ones():
    convolutional, transformer = build(n_flow_layer=3), build(n_flow_layer=3, use_transformer_flow=True)
    assert [len(coupling.enc.in_layers) for coupling in couplings(convolutional)] == [3] * 4
    assert [len(coupling.enc.ffn_layers) for coupling in couplings(transformer)] == [2] * 3


@pytest.mark.parametrize("transformer", [False, True])
def test_a_shared_stack_is_one_set_of_weights_under_every_couplings_name(transformer):
    flow = build(flow_share_parameter=True, use_transformer_flow=transformer, n_flow_layer=3)
    number = len(couplings(flow))
    state = flow.state_dict()
    stack = [name.removeprefix("wn.") for name in state if name.startswith("wn.")]
    assert stack
    for name in stack:
        places = {state[f"flows.{2 * index}.enc.{name}"].data_ptr() for index in range(number)}
        assert places == {state[f"wn.{name}"].data_ptr()}
    assert len(list(flow.parameters())) == len(stack) + 4 * number, "an optimizer sees each tensor once"


@pytest.mark.parametrize("transformer", [False, True])
def test_a_shared_stack_equals_copies_with_summed_gradients(transformer):
    """The oracle is a flow with separate, equal stacks: same outputs, and gradients that add up to the shared ones."""
    shared = build(flow_share_parameter=True, use_transformer_flow=transformer)
    apart = build(use_transformer_flow=transformer)
    apart.load_state_dict({name: tensor for name, tensor in shared.state_dict().items() if not name.startswith("wn.")})
    z, mask, g = inputs()
    outputs = [flow(z, mask, g) for flow in (shared, apart)]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-6)
    for output in outputs:
        output.square().sum().backward()
    for name, parameter in shared.wn.named_parameters():
        gradients = [dict(coupling.enc.named_parameters())[name].grad for coupling in couplings(apart)]
        torch.testing.assert_close(parameter.grad, sum(gradients), rtol=1e-3, atol=1e-4, msg=name)


def test_if_aliases_in_a_file_differ_the_stacks_own_name_counts():
    flow = build(flow_share_parameter=True)
    state = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    for name in state:
        if ".enc." in name:
            state[name] += 1
    fresh = build(seed=9, flow_share_parameter=True)
    fresh.load_state_dict(state)
    assert all(torch.equal(tensor, state[f"wn.{name}"]) for name, tensor in fresh.wn.state_dict().items())


def test_a_shared_flow_can_be_copied_and_stays_shared():
    flow = copy.deepcopy(build(flow_share_parameter=True))
    assert all(coupling.enc is flow.wn for coupling in couplings(flow))
