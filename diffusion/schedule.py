"""The noise schedule: the shares of data and noise at each step of the diffusion.

A variance preserving process (Ho et al. 2020, https://arxiv.org/abs/2006.11239): x_n = α_n · data + σ_n · noise with
α² + σ² = 1. The steps n are integers from 0 (almost data) to N - 1 (almost noise), and for the solvers all real numbers
in between. Coefficients are host numbers in double precision, so that a sampler never waits for the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

FIRST_BETA, LAST_BETA = 1e-4, 0.02


@dataclass(frozen=True)
class Level:
    """A noise level: the network's label for it, the share of data and the share of noise."""

    label: float
    alpha: float
    sigma: float

    @property
    def half_log_snr(self) -> float:
        """λ = ln(α / σ), the solvers' variable of integration."""
        return math.log(self.alpha / self.sigma)


class NoiseSchedule:
    """``betas`` (N,): the variance of the noise that each step adds."""

    def __init__(self, betas: np.ndarray):
        self.betas = np.asarray(betas, dtype=np.float64)
        self.log_alphas = np.cumsum(np.log1p(-self.betas)) / 2

    @classmethod
    def linear(cls, steps: int) -> NoiseSchedule:
        """Build the published schedule: variances that rise linearly."""
        return cls(np.linspace(FIRST_BETA, LAST_BETA, steps))

    def __len__(self) -> int:
        return len(self.betas)

    def head(self, steps: int) -> NoiseSchedule:
        """Return the schedule of the first ``steps`` steps, which shallow diffusion undoes."""
        return NoiseSchedule(self.betas[:steps])

    def at(self, label: float) -> Level:
        """Return the level of a step; ln α is interpolated at fractional steps."""
        log_alpha = float(np.interp(label, np.arange(len(self)), self.log_alphas))
        return Level(label, math.exp(log_alpha), math.sqrt(-math.expm1(2 * log_alpha)))

    def posterior(self, step: int) -> tuple[float, float, float]:
        """Compute the Gaussian posterior of x one step earlier, given x and the data (equations 6 and 7 of the paper).

        Returns the factors of the data and of x in its mean, and its standard deviation.
        """
        tables = self.tables()
        names = ("posterior_mean_coef1", "posterior_mean_coef2", "posterior_variance")
        on_data, on_x, variance = (float(tables[name][step]) for name in names)
        return on_data, on_x, math.sqrt(variance)

    def tables(self) -> dict[str, np.ndarray]:
        """Return the arrays (N,) of a checkpoint, with the names and in the order of the file format."""
        kept = np.exp(2 * self.log_alphas)
        before = np.append(1.0, kept[:-1])
        variance = self.betas * (1 - before) / (1 - kept)
        return {
            "betas": self.betas,
            "alphas_cumprod": kept,
            "alphas_cumprod_prev": before,
            "sqrt_alphas_cumprod": np.sqrt(kept),
            "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - kept),
            "log_one_minus_alphas_cumprod": np.log(1 - kept),
            "sqrt_recip_alphas_cumprod": np.sqrt(1 / kept),
            "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / kept - 1),
            "posterior_variance": variance,
            "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
            "posterior_mean_coef1": self.betas * np.sqrt(before) / (1 - kept),
            "posterior_mean_coef2": (1 - before) * np.sqrt(1 - self.betas) / (1 - kept),
        }
