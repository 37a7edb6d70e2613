"""modules/untrusted/pickle_scan.py: what picklers write passes, anything else is refused before it is unpickled."""

import collections
import pickle
import pickletools
import time

import numpy as np
import pytest

from modules.untrusted.pickle_scan import MOST_NESTED, scan_pickle

VALUES = [
    None, True, -5, 2**40, 2**3000, 1.5, "名", "a" * 300, b"bytes", b"b" * 300, (), (1,), (1, 2), (1, 2, 3),
    tuple(range(9)), [], [1], list(range(2000)), {}, {"a": [{"b": (1, [2])}]}, {1, 2}, frozenset((1, 2)),
    bytearray(b"x"), 1 + 2j, collections.OrderedDict(a=1), collections.Counter("aab"), np.arange(5.0),
    np.float32(2), slice(1, 2),
    [shared := ["x"], shared, (shared, shared)],
]  # fmt: skip


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_pickle_writes_is_passed_over_to_its_end(protocol):
    for value in [*VALUES, VALUES]:
        for data in (written := pickle.dumps(value, protocol), pickletools.optimize(written)):
            assert scan_pickle(data + b"more") == len(data), value
            assert scan_pickle(b"xx" + data, 2) == len(data) + 2


def test_a_pickle_that_is_cut_anywhere_is_called_so():
    for protocol in (0, 2, 4):
        data = pickle.dumps(VALUES, protocol)
        for length in [*range(0, len(data), 131), *range(len(data) - 40, len(data))]:
            with pytest.raises(EOFError, match="truncated"):
                scan_pickle(data[:length])


@pytest.mark.parametrize("number", [b"r\xff\xff\xff\x07", b"p134217727\n", b"p" + b"9" * 100_000 + b"\n"])
def test_an_object_with_a_number_beyond_all_counting_is_refused(number):
    with pytest.raises(ValueError, match="the object number (134217727|999)"):
        scan_pickle(b"\x80\x02K\x00" + number + b".")


def test_objects_nest_as_deep_as_allowed_and_no_deeper():
    for code in (b"\x85", b"R", b"\x81", b"b"):
        whole = b"\x80\x02" + MOST_NESTED // 2 * (b"N" if code in b"R\x81b" else b"") + b")"
        assert scan_pickle(whole + code * (MOST_NESTED // 2) + b".")
    with pytest.raises(ValueError, match=f"nests objects more than {MOST_NESTED} deep"):
        scan_pickle(b"\x80\x02)" + b"\x85" * 300 + b".")
    by_memo = b"".join(b"h" + bytes([i]) + b"\x85q" + bytes([i + 1]) for i in range(250))
    with pytest.raises(ValueError, match="deep"):
        scan_pickle(b"\x80\x02)q\x00" + by_memo + b".")


@pytest.mark.parametrize("payload", [b"a.", b"h\x05.", b"t.", b"0.", b"R.", b"q\x00.", b"2.", b"<!DOCTYPE"])
def test_what_takes_more_than_there_is_or_is_no_pickle_is_refused(payload):
    with pytest.raises(ValueError, match="its pickle uses objects|it has the byte"):
        scan_pickle(b"\x80\x02" + payload)


def test_time_is_linear_in_the_size():
    """Ten times the opcodes take some ten times as long; a quadratic scan would take a hundred times."""

    def seconds(count):
        data = b"\x80\x02](" + b"K\x01" * count + b"e" + b"]K\x01a0" * count + b"."
        began = time.process_time()
        scan_pickle(data)
        return time.process_time() - began

    assert seconds(200_000) < 40 * max(seconds(20_000), 0.005)
