"""Diffusion samplers, from noise to data: functions over a noise schedule.

All have the signature ``(predict, x, schedule, speedup, noise) -> data``:

- ``predict(x, label)``: the network's estimate of the noise in ``x`` at a step, which may be fractional;
- ``x``: the sample at the schedule's last step, a tensor of any shape;
- ``speedup``: N takes one of every N steps;
- ``noise()``: samples standard Gaussian noise of ``x``'s shape, which only ``ddpm`` needs.

The fast samplers step from one noise level to another as if the estimate were constant in between (``follow_noise``,
``follow_data``). They differ in how they extrapolate its change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import Tensor

from diffusion.schedule import Level, NoiseSchedule

Predict = Callable[[Tensor, float], Tensor]
Noise = Callable[[], Tensor]

MIN_HALF_LOG_SNR = -5.1  # DPM-Solver skips noisier levels
FEW_STEPS = 10  # with fewer steps DPM-Solver's last one is of the first order


# -- one step ---------------------------------------------------------------------------------------------------------


def data_of(x: Tensor, noise: Tensor, current: Level) -> Tensor:
    """Return the data in ``x``, given its ``noise``."""
    return (x - current.sigma * noise) / current.alpha


def follow_noise(x: Tensor, noise: Tensor, current: Level, following: Level) -> Tensor:
    """Step from one level to another with constant noise."""
    ratio = following.alpha / current.alpha
    return ratio * x + (following.sigma - ratio * current.sigma) * noise


def follow_data(x: Tensor, data: Tensor, current: Level, following: Level) -> Tensor:
    """Step from one level to another with constant data."""
    ratio = following.sigma / current.sigma
    return ratio * x + (following.alpha - ratio * current.alpha) * data


# -- the samplers -----------------------------------------------------------------------------------------------------


def ddpm(predict: Predict, x: Tensor, schedule: NoiseSchedule, speedup: int, noise: Noise) -> Tensor:
    """Take every step, each with new noise; ignores the speedup: https://arxiv.org/abs/2006.11239, algorithm 2.

    The data are clamped to [-1, 1].
    """
    for step in reversed(range(len(schedule))):
        data = data_of(x, predict(x, step), schedule.at(step)).clamp(-1, 1)
        on_data, on_x, deviation = schedule.posterior(step)
        x = on_data * data + on_x * x
        x = x + deviation * noise()  # deviation is 0 at step 0, which samples noise too, as published
    return x


def ddim(predict: Predict, x: Tensor, schedule: NoiseSchedule, speedup: int, noise: Noise) -> Tensor:
    """Step between multiples of the speedup with constant noise: https://arxiv.org/abs/2010.02502, equation 12."""
    for current, following in pairwise(_strided_levels(schedule, speedup)):
        x = follow_noise(x, predict(x, current.label), current, following)
    return x


def pndm(predict: Predict, x: Tensor, schedule: NoiseSchedule, speedup: int, noise: Noise) -> Tensor:
    """Take pseudo linear multistep steps of order 4, at the levels of ``ddim``: https://arxiv.org/abs/2202.09778.

    The first step averages the estimates at both its ends; the second and third use the history that exists.
    """
    history: list[Tensor] = []
    for current, following in pairwise(_strided_levels(schedule, speedup)):
        history = [predict(x, current.label), *history[:3]]
        if len(history) == 1:
            ahead = predict(follow_noise(x, history[0], current, following), following.label)
            mean = (history[0] + ahead) / 2
        else:
            mean = sum(weight * past for weight, past in zip(ADAMS_BASHFORTH[len(history)], history, strict=True))
        x = follow_noise(x, mean, current, following)
    return x


ADAMS_BASHFORTH = {
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


def dpm_solver(predict: Predict, x: Tensor, schedule: NoiseSchedule, speedup: int, noise: Noise) -> Tensor:
    """Extrapolate the noise linearly in λ from its last two values: https://arxiv.org/abs/2206.00927, multistep."""
    levels = _even_levels(_without_noisiest(schedule), len(schedule) // speedup)
    return _second_order(lambda x, current: predict(x, current.label), follow_noise, x, levels)


def dpm_solver_plus_plus(predict: Predict, x: Tensor, schedule: NoiseSchedule, speedup: int, noise: Noise) -> Tensor:
    """Extrapolate the data linearly in λ from their last two values: https://arxiv.org/abs/2211.01095, algorithm 2."""
    levels = _even_levels(_without_noisiest(schedule), len(schedule) // speedup)
    return _second_order(lambda x, current: data_of(x, predict(x, current.label), current), follow_data, x, levels)


def unipc(predict: Predict, x: Tensor, schedule: NoiseSchedule, speedup: int, noise: Noise) -> Tensor:
    """Take DPM-Solver++ steps, each corrected by the estimate at its end, which the next step reuses.

    https://arxiv.org/abs/2302.04867, order 2 with B(h) = 1 - e^-h; the last step is of the first order.
    """
    *levels, end = _even_levels(schedule, len(schedule) // speedup)
    data, trend, before = data_of(x, predict(x, levels[0].label), levels[0]), 0.0, None
    for current, following in pairwise(levels):
        step = following.half_log_snr - current.half_log_snr
        ahead = follow_data(x, data + trend * (step / 2), current, following)
        change = data_of(ahead, predict(ahead, following.label), following) - data
        on_trend, on_change = _corrector_weights(before, current, following)
        x = follow_data(x, data + trend * (step * on_trend) + on_change * change, current, following)
        data, trend, before = data + change, change / step, current
    return follow_data(x, data, levels[-1], end)


# -- helpers ------------------------------------------------------------------------------------------------------


def _strided_levels(schedule: NoiseSchedule, speedup: int) -> list[Level]:
    """Return the levels of the multiples of the speedup among the steps, from the last to 0."""
    return [schedule.at(step) for step in range(0, len(schedule), speedup)][::-1]


def _even_levels(schedule: NoiseSchedule, steps: int) -> list[Level]:
    """Return ``steps`` + 1 levels, evenly spaced from the last step to 0."""
    return [schedule.at(float(label)) for label in np.linspace(len(schedule) - 1, 0, steps + 1)]


def _without_noisiest(schedule: NoiseSchedule) -> NoiseSchedule:
    """Return the schedule without levels of almost pure noise (the published schedule has none)."""
    return schedule.head(sum(schedule.at(n).half_log_snr >= MIN_HALF_LOG_SNR for n in range(len(schedule))))


def _second_order(
    estimate: Callable[[Tensor, Level], Tensor],
    follow: Callable[[Tensor, Tensor, Level, Level], Tensor],
    x: Tensor,
    levels: list[Level],
) -> Tensor:
    """Sample by a two-step multistep method: each step follows the estimate extrapolated to its middle, in λ."""
    value, trend, before = None, 0.0, None
    for current, following in pairwise(levels):
        past, value = value, estimate(x, current)
        if before is not None:
            trend = (value - past) / (current.half_log_snr - before.half_log_snr)
        if following is levels[-1] and len(levels) <= FEW_STEPS:
            trend = 0.0
        x = follow(x, value + trend * ((following.half_log_snr - current.half_log_snr) / 2), current, following)
        before = current
    return x


def _corrector_weights(before: Level | None, current: Level, following: Level) -> tuple[float, float]:
    """Return the weights of UniPC's corrector for the previous trend (over the whole step) and for the new change."""
    if before is None:
        return 0.0, 1 / 2
    step = following.half_log_snr - current.half_log_snr
    back = (before.half_log_snr - current.half_log_snr) / step
    phi_1 = math.expm1(-step)
    phi_2 = -phi_1 / step - 1
    phi_3 = -phi_2 / step - 1 / 2
    on_trend = (phi_2 - 2 * phi_3) / (phi_1 * (1 - back))
    return on_trend, phi_2 / phi_1 - on_trend


# -- the table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampler:
    """A sampler, its NFE (network evaluations) by depth (steps to undo) and speedup, and the minimum NFE."""

    run: Callable[[Predict, Tensor, NoiseSchedule, int, Noise], Tensor]
    evaluations: Callable[[int, int], int]
    min_evaluations: int = 1


SAMPLERS = {
    "ddpm": Sampler(ddpm, lambda depth, speedup: depth),
    "ddim": Sampler(ddim, lambda depth, speedup: (depth - 1) // speedup),
    "pndm": Sampler(pndm, lambda depth, speedup: (depth - 1) // speedup + 1, min_evaluations=2),
    "dpm-solver": Sampler(dpm_solver, lambda depth, speedup: depth // speedup, min_evaluations=2),
    "dpm-solver++": Sampler(dpm_solver_plus_plus, lambda depth, speedup: depth // speedup, min_evaluations=2),
    "unipc": Sampler(unipc, lambda depth, speedup: depth // speedup, min_evaluations=2),
}
