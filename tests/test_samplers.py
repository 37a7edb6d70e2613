"""Every sampler on Gaussian data, for which the noise and the result are known exactly."""

import itertools
import math

import numpy as np
import pytest
import torch

from diffusion.samplers import SAMPLERS
from diffusion.schedule import NoiseSchedule

MEAN, DEVIATION = 0.3, 0.2
STEPS = 961  # the last step is a multiple of many speedups, so every method starts there
DETERMINISTIC = [name for name in SAMPLERS if name != "ddpm"]
SOLVERS = ("dpm-solver", "dpm-solver++", "unipc")


def spread(level, deviation=DEVIATION):
    """The standard deviation of x at a level."""
    return math.hypot(level.alpha * deviation, level.sigma)


def gaussian(schedule, mean=MEAN, deviation=DEVIATION):
    """The ideal network for Gaussian data."""

    def predict(x, label):
        level = schedule.at(label)
        return level.sigma * (x - level.alpha * mean) / spread(level, deviation) ** 2

    return predict


def no_noise():
    raise AssertionError("this method draws nothing")


def end_of(method, x, schedule, speedup, deviation=DEVIATION):
    return SAMPLERS[method].run(gaussian(schedule, deviation=deviation), x, schedule, speedup, no_noise)


def error(method, schedule, speedup):
    """How far off the mean and the standard deviation are of what comes of the exact distribution at the last step.

    The way of each x is affine in it, so the ends of two of them tell the whole distribution at the end.
    """
    first, last = schedule.at(0), schedule.at(len(schedule) - 1)
    middle = last.alpha * MEAN
    ends = end_of(method, torch.tensor([middle, middle + spread(last)], dtype=torch.float64), schedule, speedup)
    mean, deviation = ends[0].item(), (ends[1] - ends[0]).item()
    return max(abs(mean - first.alpha * MEAN), abs(deviation - spread(first)))


@pytest.mark.parametrize("method", DETERMINISTIC)
@pytest.mark.parametrize("depth", [STEPS, 241])
def test_gaussian_data_are_sampled_with_the_exact_mean_and_deviation(method, depth):
    allowed = 0.01 if method == "ddim" else 0.001
    assert error(method, NoiseSchedule.linear(STEPS).head(depth), 1) < allowed * DEVIATION


@pytest.mark.parametrize("method", DETERMINISTIC)
def test_ten_times_fewer_steps_stay_within_some_percent_of_the_deviation(method):
    assert error(method, NoiseSchedule.linear(STEPS), 10) < 0.08 * DEVIATION


@pytest.mark.parametrize(
    ("method", "factor"), [("ddim", 3.5), ("pndm", 12), ("dpm-solver", 12), ("dpm-solver++", 12), ("unipc", 7)]
)
def test_four_times_the_steps_make_fewer_errors_by_the_order_of_the_method(method, factor):
    # By 4 for the first order and by 16 for the second; UniPC's last step is always of the first order.
    schedule = NoiseSchedule.linear(STEPS)
    assert error(method, schedule, 4) > factor * error(method, schedule, 1)


def test_ancestral_sampling_of_gaussian_data_has_the_exact_mean_and_in_the_limit_of_many_steps_the_exact_deviation():
    (mean, coarse), (_, fine) = ancestral_end(300), ancestral_end(600)
    assert mean == pytest.approx(MEAN, abs=1e-4)
    assert abs(fine - DEVIATION) < 0.6 * abs(coarse - DEVIATION) < 0.06 * DEVIATION
    assert 2 * fine - coarse == pytest.approx(DEVIATION, rel=0.01)


def ancestral_end(steps):
    """The mean and deviation at the end of ``ddpm``, by a schedule that loses in ``steps`` what the published one does.

    Column 0 hears no noise, column k a one in the k-th draw and the last column begins a deviation higher. All is
    linear, so the squares of what these change sum to the variance.
    """
    schedule = NoiseSchedule(NoiseSchedule.linear(steps).betas * 1000 / steps)
    last = schedule.at(steps - 1)
    x = torch.full((steps + 1,), last.alpha * MEAN, dtype=torch.float64)
    x[-1] += spread(last)
    draws = itertools.count(1)

    def unit_noise():
        return (torch.arange(steps + 1) == next(draws)).double()

    ends = SAMPLERS["ddpm"].run(gaussian(schedule), x, schedule, 1, unit_noise)
    assert next(draws) == steps + 1, "one sample a step; the last has no effect"
    return ends[0].item(), (ends[1:] - ends[0]).square().sum().sqrt().item()


def test_ancestral_sampling_clamps_the_data():
    schedule = NoiseSchedule.linear(50)
    x = torch.tensor([-9.0, 9.0])
    ends = SAMPLERS["ddpm"].run(lambda x, label: torch.zeros_like(x), x, schedule, 1, lambda: torch.zeros(2))
    assert ends.tolist() == [-1, 1]


@pytest.mark.parametrize("method", DETERMINISTIC)
@pytest.mark.parametrize("speedup", [2, 10, 50])
def test_a_single_data_point_is_found_in_any_number_of_steps(method, speedup):
    schedule = NoiseSchedule.linear(1000).head(101)
    first, last = schedule.at(0), schedule.at(100)
    noise = torch.linspace(-2, 2, 5, dtype=torch.float64)
    ends = end_of(method, last.alpha * MEAN + last.sigma * noise, schedule, speedup, deviation=0)
    assert torch.allclose(ends, first.alpha * MEAN + first.sigma * noise)


@pytest.mark.parametrize("method", SAMPLERS)
@pytest.mark.parametrize(("depth", "speedup"), [(100, 10), (100, 7), (100, 50), (95, 30), (1000, 100), (61, 20)])
def test_the_table_has_the_number_of_evaluations(method, depth, speedup):
    asked = labels(method, depth, speedup)
    assert len(asked) == SAMPLERS[method].evaluations(depth, speedup)


def test_the_network_is_evaluated_at_the_published_steps():
    assert labels("ddpm", 100, 10) == list(range(99, -1, -1))
    assert labels("ddim", 100, 10) == list(range(90, 0, -10))
    assert labels("pndm", 100, 10) == [90, 80, 80, *range(70, 0, -10)]
    assert labels("ddim", 100, 7)[0] == 98
    for method in SOLVERS:
        assert labels(method, 100, 10) == pytest.approx(np.arange(99, 9, -9.9))
        assert labels(method, 1000, 100) == pytest.approx(np.arange(999, 99, -99.9))


def labels(method, depth, speedup):
    asked = []

    def predict(x, label):
        asked.append(label)
        return torch.zeros_like(x)

    schedule = NoiseSchedule.linear(max(depth, 1000)).head(depth)
    SAMPLERS[method].run(predict, torch.zeros(2, 1), schedule, speedup, lambda: torch.zeros(2, 1))
    return asked


def test_dpm_solver_skips_levels_of_almost_pure_noise():
    first = {method: labels(method, 2000, 100)[0] for method in SOLVERS}
    assert first["unipc"] == 1999
    assert first["dpm-solver"] == first["dpm-solver++"] < 1999
    assert NoiseSchedule.linear(2000).at(first["dpm-solver"]).half_log_snr == pytest.approx(-5.1, abs=0.02)


@pytest.mark.parametrize("method", SAMPLERS)
def test_items_of_a_batch_are_independent(method):
    schedule = NoiseSchedule.linear(100)
    x = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(1))
    together, alone = (
        SAMPLERS[method].run(gaussian(schedule), some, schedule, 10, lambda some=some: torch.full_like(some, 0.1))
        for some in (x, x[1:2])
    )
    assert torch.allclose(together[1:2], alone)
