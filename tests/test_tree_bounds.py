"""modules/untrusted/tree_bounds.py: trees that can be written out pass, those that have no end do not."""

import pytest

from modules.console import short_repr
from modules.untrusted.pickle_scan import MOST_NESTED
from modules.untrusted.tree_bounds import check_tree


def nested(depth, make=lambda inner: [inner]):
    value = 1
    for _ in range(depth):
        value = make(value)
    return value


def test_a_tree_is_counted_with_its_repetitions():
    shared = [1, 2, 3]
    check_tree([shared, shared], 9)
    with pytest.raises(ValueError, match="no end"):
        check_tree([shared, shared], 8)
    check_tree({"a": (1, {2}), "b": None}, 8)


def test_lists_that_multiply_are_refused_at_once():
    laughs = nested(60, lambda inner: [inner] * 10)
    with pytest.raises(ValueError, match="no end"):
        check_tree(laughs, 10**6)
    with pytest.raises(ValueError, match="no end"):
        check_tree(nested(60, lambda inner: {"a": inner, "b": (inner, inner)}), 10**6)


def test_a_container_that_holds_itself_is_refused():
    endless = [1]
    endless.append({"a": endless})
    with pytest.raises(ValueError, match="contains itself"):
        check_tree(endless, 10**6)


def test_depth_is_bounded_however_deep_it_is():
    check_tree(nested(MOST_NESTED - 1), 10**6)
    with pytest.raises(ValueError, match="deep"):
        check_tree(nested(100_000), 10**6)


def test_the_repr_of_any_value_in_a_message_is_short():
    laughs = nested(50, lambda inner: [inner] * 10)
    for value in (laughs, nested(5000), 1 << 10**6, 10**4000, "a" * 10**6, list(range(10**6))):
        assert len(short_repr(value)) < 3000
    for value in (3, "a", [1, 2.5], {"a": None}, True, ["x"] * 12):
        assert short_repr(value) == repr(value)
