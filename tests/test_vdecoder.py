"""Properties of every decoder of the table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modules.config import ModelConfig
from vdecoder import DECODERS
from vdecoder.block_plan import context_frames, plan_block

ROOT = Path(__file__).parents[1]


def decoder(key):
    torch.manual_seed(0)
    model = ModelConfig(
        inter_channels=4, gin_channels=4, upsample_initial_channel=16, upsample_rates=[4, 2],
        upsample_kernel_sizes=[8, 4], resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3, 5]],
    )  # fmt: skip
    return DECODERS[key].build(model).eval()


@pytest.mark.parametrize("key", list(DECODERS))
@torch.inference_mode()
def test_blocks_of_a_song_equal_one_pass(key):
    net, generator = decoder(key), torch.Generator().manual_seed(1)
    z, g = torch.randn(1, 4, 90, generator=generator), torch.randn(1, 4, 1, generator=generator)
    f0 = 100 + 300 * torch.rand(1, 90, generator=generator)
    whole, blocks = (net.decode(z, f0, g, torch.Generator().manual_seed(2), size) for size in (90, 7))
    assert whole.shape == (1, 1, 90 * net.hop_length)
    torch.testing.assert_close(blocks, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("page", ["docs/prepare.md", "configs_template/README.md"])
def test_every_key_is_in_the_row_of_its_setting(page):
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    (row,) = (line for line in lines if line.startswith("| `model.vocoder_name`"))
    assert [key for key in DECODERS if f"`{key}`" not in row] == []


@pytest.mark.parametrize("name", list(DECODERS))
@pytest.mark.parametrize("resblock", ["1", "2"])
@pytest.mark.parametrize(
    "rates", [{}, {"upsample_rates": [2, 4, 8, 8], "upsample_kernel_sizes": [4, 8, 16, 16]}], ids=["usual", "reversed"]
)
def test_the_context_by_sizes_is_what_a_block_needs(name, resblock, rates):
    model = ModelConfig(upsample_initial_channel=32, resblock=resblock, **rates)
    net = DECODERS[name].build(model)
    needed = plan_block(net, 500, 501, 1000).window
    context = context_frames(model, net.snake_post.reach)
    assert 500 - context <= needed.start <= 500 - 0.5 * context
    assert 501 + 0.5 * context <= needed.stop <= 501 + context
