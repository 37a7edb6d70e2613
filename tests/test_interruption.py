"""modules/training/interruption.py: the first signal is only noted, the second has its default effect."""

import signal

import pytest

from modules.training.interruption import STOPPING, ignore_stop_signals, stop_signal


@pytest.fixture(autouse=True)
def own_handlers():
    outside = {number: signal.getsignal(number) for number in STOPPING}
    for number in STOPPING:
        if outside[number] == signal.SIG_IGN:  # SIGHUP, under nohup
            signal.signal(number, signal.SIG_DFL)
    yield {number: signal.getsignal(number) for number in STOPPING}
    for number, handler in outside.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOPPING)
def test_a_first_signal_is_noted_and_the_work_goes_on(number, caplog):
    caplog.set_level("INFO")
    with stop_signal() as stop:
        assert stop.number == 0
        signal.raise_signal(number)
        assert stop.number == number and "a second signal stops at once" in caplog.text


def test_a_second_signal_ends_at_once():
    with pytest.raises(KeyboardInterrupt), stop_signal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.number == signal.SIGINT
        signal.raise_signal(signal.SIGINT)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no such signal")
def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with stop_signal() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert stop.number == 0


def test_the_handlers_are_restored_even_after_an_error(own_handlers):
    with pytest.raises(ZeroDivisionError), stop_signal():
        assert all(signal.getsignal(number) != handler for number, handler in own_handlers.items())
        raise ZeroDivisionError
    assert {number: signal.getsignal(number) for number in STOPPING} == own_handlers


def test_a_loaders_worker_ignores_the_signals():
    ignore_stop_signals(0)
    for number in STOPPING:
        signal.raise_signal(number)
