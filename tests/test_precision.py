"""The precision of a conversion: which one a device gets, and how far it is from float32."""

import numpy as np
import pytest
import torch

from inference.precision import pick_dtype
from inference.svc import Svc
from modules.console import UserError
from tests.test_nsf_hifigan import decoder, inputs, seeded
from tests.test_svc import write_model, write_song
from vdecoder.residual_blocks import FourierResBlock, HalfResBlock

CPU, CUDA, MPS = map(torch.device, ("cpu", "cuda", "mps"))


@pytest.mark.parametrize(
    ("device", "amx", "dtype"),
    [
        (CPU, False, torch.float32),
        (CPU, True, torch.bfloat16),
        (CUDA, False, torch.float16),
        (MPS, False, torch.float32),
    ],
)
def test_auto_is_the_fastest_type_of_the_device(device, amx, dtype, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert pick_dtype("auto", device) == dtype


def test_what_a_device_cannot_do_is_refused():
    assert pick_dtype("bf16", CPU) == pick_dtype("bf16", CUDA) == torch.bfloat16
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        pick_dtype("fp16", CPU)
    with pytest.raises(UserError, match="fp8"):
        pick_dtype("fp8", CPU)


@pytest.mark.parametrize("resblock", ["1", "2"])
def test_half_precision_of_the_residual_blocks_is_near_and_not_equal(resblock):
    z, f0, g = inputs(61)
    with torch.inference_mode():
        exact, half = decoder(resblock=resblock), decoder(resblock=resblock)
        half.prepare_for_conversion(torch.bfloat16)
        wanted, got = exact.decode(z, f0, g, seeded()), half.decode(z, f0, g, seeded(), block_frames=7)
    assert got.dtype == torch.float32
    assert 0 < (got - wanted).norm() < 0.02 * wanted.norm()


def test_in_bfloat16_the_last_stage_stays_in_float32():
    net = decoder()
    net.prepare_for_conversion(torch.bfloat16)
    *halved, last = (net.stage_blocks(stage) for stage in range(len(net.ups)))
    assert {type(block) for blocks in halved for block in blocks} == {HalfResBlock}
    assert {type(block) for block in last} == {FourierResBlock}
    assert len(net.resblocks) == len(decoder().resblocks)


def test_a_converter_in_half_precision_sings_nearly_the_same(tmp_path):
    song = write_song(tmp_path / "song.wav", 1.5)
    model = write_model(tmp_path)
    exact, half = (
        Svc(*model, "cpu", precision=name).slice_inference(song, "alto", f0_predictor="pm") for name in ("fp32", "bf16")
    )
    assert 0 < np.linalg.norm(half - exact) < 0.05 * np.linalg.norm(exact)


def test_the_residual_path_of_a_block_in_half_precision_stays_in_float32():
    block = decoder().resblocks[0]
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.randn(1, 16, 50)
    for conv in (*block.convs1, *block.convs2):
        conv.weight_v.data.fill_(1)
        conv.fold()
    with torch.inference_mode():
        assert torch.equal(HalfResBlock(block, torch.bfloat16)(x), x)
