"""modules/data/sampler.py: every clip once per epoch, resumable, and random numbers seeded by seed, epoch and clip."""

import subprocess
import sys
from itertools import islice
from pathlib import Path

import torch

from modules.data.sampler import EpochBatches, seeded_generator


def order(batches, epoch, first_batch=0):
    return list(batches.rank_batches(epoch, first_batch))


def test_every_epoch_has_every_clip_once_in_an_order_of_its_own():
    batches = EpochBatches(clips=10, batch_size=3, seed=1)
    orders = []
    for epoch in (1, 2):
        given = [key for batch in order(batches, epoch) for key in batch]
        assert {e for e, _ in given} == {epoch}
        orders.append([index for _, index in given])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10)) and orders[0] != orders[1]


def test_batches_of_clips_of_similar_lengths_have_every_clip_once_and_little_padding():
    frames = torch.randint(100, 800, (101,), generator=torch.Generator().manual_seed(0)).tolist()

    def padding(batches):
        return sum(max(lengths) - length for lengths in batches for length in lengths)

    alike, any_order = EpochBatches(101, 4, seed=1, frames=frames), EpochBatches(101, 4, seed=1)
    given = {epoch: alike.epoch_batches(epoch) for epoch in (1, 2)}
    assert given[1] != given[2] and len(given[1]) == len(alike) == 26
    for batches in given.values():
        assert sorted(clip for batch in batches for clip in batch) == list(range(101))
        assert sorted(map(len, batches)) == [1] + 25 * [4]
    kinds = alike, any_order
    waste = [padding([frames[clip] for clip in batch] for batch in kind.epoch_batches(1)) for kind in kinds]
    assert waste[0] < waste[1] / 4
    longest = [max(frames[clip] for clip in batch) for batch in given[1]]
    assert longest[:8] != sorted(longest[:8]), "short ones first, every time"


def test_an_epoch_can_be_entered_at_any_batch():
    batches = EpochBatches(clips=10, batch_size=3, seed=1)
    assert len(batches) == 4
    for first in range(4):
        assert order(batches, 7, first) == order(batches, 7)[first:]


def test_iteration_continues_across_epochs_without_end():
    batches = EpochBatches(clips=10, batch_size=3, seed=1)
    batches.start(2, first_batch=3)
    wanted = order(batches, 2)[3:] + order(batches, 3) + order(batches, 4)
    assert list(islice(batches, len(wanted))) == wanted


def test_the_order_is_a_function_of_seed_and_epoch():
    torch.manual_seed(0)
    wanted = order(EpochBatches(clips=10, batch_size=3, seed=1), 2)
    torch.rand(5)
    assert order(EpochBatches(clips=10, batch_size=3, seed=1), 2) == wanted
    assert order(EpochBatches(clips=10, batch_size=3, seed=2), 2) != wanted


def test_each_key_has_its_own_random_numbers_equal_in_every_process():
    keys = [(seed, epoch, *rest) for seed in (1234, -1) for epoch in range(3) for rest in ((), (0,), (1,), (0, 0))]
    sampled = [int(torch.randint(1 << 40, (), generator=seeded_generator(*key))) for key in keys]
    assert len(set(sampled)) == len(sampled)
    program = (
        "import torch; from modules.data.sampler import seeded_generator\n"
        f"print([int(torch.randint(1 << 40, (), generator=seeded_generator(*key))) for key in {keys}])"
    )
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, encoding="utf-8")
    assert run.stdout.strip() == str(sampled), run.stderr
