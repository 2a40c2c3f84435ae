"""Paired differences, and which of them remain after the correction for several comparisons."""

import pytest
from scipy import stats

from nin_jax.study.statistics import Difference, difference, holm


def test_the_p_value_is_that_of_a_paired_t_test():
    a, b = {0: 0.91, 1: 0.93, 2: 0.92}, {0: 0.90, 1: 0.905, 2: 0.91}
    found = difference(a, b)
    assert found is not None
    assert found.p == pytest.approx(stats.ttest_rel([*a.values()], [*b.values()]).pvalue)
    assert (found.finding in ("more", "less")) == (found.p < 0.05)
    assert Difference.of([0.1]).p == 1.0
    assert Difference.of([0.1, 0.1]).p < 1e-12


def test_holms_correction_stops_at_the_first_that_fails():
    """The limits are 0.05 / 3, 0.05 / 2 and 0.05."""
    assert holm({"a": 0.04, "b": 0.01, "c": 0.024}) == ["b", "c", "a"]
    assert holm({"a": 0.04, "b": 0.01, "c": 0.026}) == ["b"]
    assert holm({"a": 0.017, "b": 0.9}) == ["a"]
    assert holm({}) == []
