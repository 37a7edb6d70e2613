import numpy as np
import pytest

from demonstration.measures import f0_correlation, voicing_error


def test_the_correlation_is_one_for_a_transposed_contour_and_sees_only_frames_that_both_call_voiced():
    true = np.array([100.0, 120.0, 150.0, 0.0, 140.0, 130.0])
    measured = np.array([200.0, 240.0, 300.0, 777.0, 5.0, 260.0])
    voiced = np.array([1, 1, 1, 1, 0, 1])
    assert f0_correlation(measured, voiced, true, true > 0) == pytest.approx(1.0)


def test_the_correlation_is_about_zero_for_an_unrelated_contour_and_zero_without_voiced_frames():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(100, 200, (2, 4000))
    assert abs(f0_correlation(a, a > 0, b, b > 0)) < 0.06
    assert f0_correlation(a, a < 0, b, b > 0) == 0.0


def test_the_voicing_error_counts_both_kinds_of_mistake():
    assert voicing_error(np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0])) == 0.5
