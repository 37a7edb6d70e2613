"""The paired bootstrap: its intervals cover, and it finds what differs and nothing else."""

import numpy as np
import pytest

from evaluation.assessment import Assessment, Column
from evaluation.comparison import interval, paired_difference
from evaluation.report import comparison_table, differences, sweep_table, table


def clips(values, key="similarity"):
    return [{key: float(value)} for value in values]


def test_the_interval_of_equal_values_is_the_value_and_of_nothing_is_none():
    assert interval([2.0] * 6).low == interval([2.0] * 6).high == 2
    assert not interval([1.0, 2.0, 3.0]).is_known
    assert interval([]) is None


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for count in (6, 30):
        covered = [found.low <= 1 <= found.high for found in (interval(rng.normal(1, 2, count)) for _ in range(150))]
        assert 0.9 <= np.mean(covered) <= 0.99


def test_a_difference_smaller_than_the_spread_of_the_clips_is_found_because_they_are_paired():
    rng = np.random.default_rng(1)
    first = rng.normal(0.5, 0.2, 12)
    second = first + 0.02 + rng.normal(0, 0.01, 12)
    between = paired_difference(clips(first), clips(second), "similarity")
    assert between.excludes_zero and between.low < 0.02 < between.high
    assert interval(second).low < np.mean(first)  # unpaired, the two means are within each other's interval


def test_equal_conversions_do_not_differ_and_few_clips_never_do():
    rng = np.random.default_rng(2)
    first = rng.normal(0, 1, 20)
    assert not paired_difference(clips(first), clips(first), "similarity").excludes_zero
    assert not paired_difference(clips(first[:5]), clips(first[:5] + 1), "similarity").excludes_zero
    assert paired_difference(clips(first[:6]), clips(first[:6] + 1), "similarity").excludes_zero


def test_false_claims_are_rare_over_all_figures_together():
    rng = np.random.default_rng(3)
    false = 0
    for _ in range(60):
        first, second = rng.normal(0, 1, (2, 10, 12))
        false += any(paired_difference(clips(a), clips(b), "similarity", 10).excludes_zero
                     for a, b in zip(first, second, strict=True))  # fmt: skip
    assert false <= 8  # 3 are expected


def test_clips_that_lack_a_figure_are_left_out():
    between = paired_difference([{"a": 1.0}, {}, {"a": 2.0}], [{"a": 2.0}, {"a": 9.0}, {}], "a")
    assert (between.mean, between.count) == (1.0, 1)


def assessment(similarity, lag=(0.0,) * 8, notes=()):
    column = Column([{"similarity": s, "lag": lg} for s, lg in zip(similarity, lag, strict=False)])
    return Assessment([f"clip {i}" for i in range(len(similarity))], {"converted": column}, list(notes), {}, 80.0)


def test_the_comparison_says_what_is_better_and_what_does_not_differ():
    rng = np.random.default_rng(4)
    base = rng.normal(0.6, 0.05, 8)
    early, late = assessment(base), assessment(base + 0.1 + rng.normal(0, 0.01, 8), notes=["DNSMOS is left out"])
    text = comparison_table(["early", "late"], [early, late])
    assert "better: speaker similarity" in text and "lag" in text and "DNSMOS is left out" in text
    assert "worse: speaker similarity" in comparison_table(["late", "early"], [late, early])
    assert "no figure differs beyond chance (8 clips)" in comparison_table(["early", "early (2)"], [early, early])


def test_a_figure_of_which_zero_is_best_is_compared_without_its_sign():
    late, early = assessment([0.5] * 8, [0.02] * 8), assessment([0.5] * 8, [-0.02] * 8)
    assert not differences(late, early)["lag"].excludes_zero
    aligned = assessment([0.5] * 8, [0.001] * 8)
    assert "better: lag" in comparison_table(["late", "aligned"], [late, aligned])


def test_a_table_shows_intervals_groups_and_notes_and_a_sweep_shows_seconds():
    result = assessment([0.5, 0.6, 0.7, 0.5, 0.6, 0.7, 0.6, 0.6], notes=["the judge is missing"])
    lines = table(result).splitlines()
    assert "against the target's recordings" in lines and lines[-1] == "the judge is missing"
    assert any("0.600 (0." in line for line in lines)
    better = assessment([0.9] * 8)
    text = sweep_table({"as given": result, "-cr 0.5": better}, {"as given": 0.25, "-cr 0.5": 0.5})
    assert "0.25" in text and "0.900*" in text and "0.600*" not in text


def test_a_sweep_and_a_comparison_of_many_claim_no_more_than_one_of_two():
    rng = np.random.default_rng(7)
    base = rng.normal(0.6, 0.05, 8)
    first, second = assessment(base), assessment(base + rng.normal(0.022, 0.02, 8))
    between = differences(first, second)["similarity"], differences(first, second, 12)["similarity"]
    assert between[0].excludes_zero and not between[1].excludes_zero
    many = {"first": first, "second": second} | {f"other {i}": first for i in range(11)}
    assert "*" not in sweep_table(many, dict.fromkeys(many, 1.0))
    assert "better" not in comparison_table(list(many), list(many.values()))


def test_a_difference_below_the_decimals_has_no_star():
    first, second = assessment([0.5, 0.6] * 4), assessment([0.50001, 0.60001] * 4)
    assert differences(first, second)["similarity"].excludes_zero
    assert "0.550*" not in sweep_table({"a": first, "b": second}, {"a": 1.0, "b": 1.0})


@pytest.mark.parametrize("count", [1, 3])
def test_few_clips_are_called_too_few(count):
    result = assessment([0.5] * count)
    assert "fewer than six clips" in comparison_table(["a", "b"], [result, result])
