import math

import numpy as np
import pytest

from diffusion.schedule import NoiseSchedule


def test_the_linear_schedule_has_the_published_levels():
    kept = NoiseSchedule.linear(1000).tables()["alphas_cumprod"]
    published = {0: 0.9999, 99: 0.897018, 299: 0.39642, 499: 0.0785872, 999: 4.03583e-5}
    assert {step: kept[step] for step in published} == pytest.approx(published, rel=1e-5)
    assert NoiseSchedule.linear(1000).at(999).half_log_snr == pytest.approx(-5.0588, abs=1e-4)


def test_the_variance_is_preserved_at_integer_and_fractional_steps():
    schedule = NoiseSchedule.linear(50)
    for label in (0, 0.5, 17, 48.9, 49):
        level = schedule.at(label)
        assert level.alpha**2 + level.sigma**2 == pytest.approx(1)
        assert level.half_log_snr == pytest.approx(math.log(level.alpha / level.sigma))


def test_levels_are_interpolated_between_steps():
    schedule = NoiseSchedule.linear(50)
    kept = schedule.tables()["sqrt_alphas_cumprod"]
    assert schedule.at(20).alpha == pytest.approx(kept[20])
    assert schedule.at(20.5).alpha == pytest.approx(math.sqrt(kept[20] * kept[21]))


def test_the_head_of_a_schedule_starts_like_the_full_schedule():
    whole, head = NoiseSchedule.linear(1000), NoiseSchedule.linear(1000).head(100)
    assert len(head) == 100
    assert head.at(99) == whole.at(99)


@pytest.mark.parametrize("step", [1, 30, 199])
def test_the_posterior_is_bayes_rule(step):
    # x one step earlier, z: data say z ~ N(a·data, 1 - a²); x says x ~ N(√(1-β)·z, β). Their product in z is Gaussian.
    schedule = NoiseSchedule.linear(200)
    beta, before = schedule.betas[step], schedule.at(step - 1)
    precision = 1 / before.sigma**2 + (1 - beta) / beta
    on_data, on_x, deviation = schedule.posterior(step)
    assert deviation == pytest.approx(precision**-0.5)
    assert on_data == pytest.approx(before.alpha / before.sigma**2 / precision)
    assert on_x == pytest.approx(math.sqrt(1 - beta) / beta / precision)


def test_before_the_first_step_are_the_data():
    assert NoiseSchedule.linear(10).posterior(0) == pytest.approx((1, 0, 0))


def test_the_tables_are_finite():
    assert all(np.isfinite(table).all() for table in NoiseSchedule.linear(1000).tables().values())
