"""modules/training/throughput.py: a run's figures are those of the clock."""

import time
from datetime import datetime

import pytest
import torch

from modules.training import throughput
from modules.training.throughput import ThroughputMeter

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(throughput, "peak_memory", lambda device: 1.5)
    return now


def run(watch, clock, steps, *, waiting, learning, aside=0.0):
    """Steps that wait and learn for so many seconds, and do something else after each."""

    def loader():
        for number in range(steps):
            clock[0] += waiting
            yield number

    for _ in watch.batches(loader()):
        clock[0] += learning
        watch.step_done()
        clock[0] += aside


def test_waiting_learning_and_what_is_neither_are_told_apart(clock):
    watch = ThroughputMeter(100, 150, CPU)
    run(watch, clock, 10, waiting=0.5, learning=1.5, aside=2.0)
    assert watch.data_share == 0.25
    report = watch.report(110)
    assert (report.data_seconds, report.compute_seconds, report.data_share) == (0.5, 1.5, 0.25)
    assert report.steps_per_second == 0.5
    assert report.seconds_left == 40 * 4.0, "evaluations and checkpoints will take their time again"


class Device:
    """A CUDA device that works off what it is given, one after the other, while the program goes on."""

    def __init__(self, clock):
        self.clock, self.busy_until = clock, 0.0

    def give(self, seconds):
        self.busy_until = max(self.busy_until, self.clock[0]) + seconds

    def event(self, enable_timing):
        assert enable_timing
        return Event(self)


class Event:
    def __init__(self, device):
        self.device = device

    def log_step(self):
        self.moment = max(self.device.busy_until, self.device.clock[0])

    def query(self):
        return self.moment <= self.device.clock[0]

    def elapsed_time(self, later):
        assert self.query() and later.query()
        return 1000 * (later.moment - self.moment)


@pytest.mark.parametrize(("waiting", "idle"), [(1.0, 0.0), (3.5, 0.0), (10.0, 6.0)])
def test_a_device_that_has_steps_in_hand_waits_for_no_data(clock, monkeypatch, waiting, idle):
    device = Device(clock)
    monkeypatch.setattr(torch.cuda, "Event", device.event)
    watch = ThroughputMeter(0, 20, torch.device("cuda"))

    def loader():
        for number in range(20):
            clock[0] += waiting
            yield number

    for number in watch.batches(loader()):
        device.give(4.0)
        looks = number % 5 == 4
        if looks:  # at what has come out, and so it waits for the device
            clock[0] = max(clock[0], device.busy_until)
        watch.step_done()
        share = watch.data_share
        if looks:
            assert share > 0, "the wait after the look before"
            clock[0] += 50  # a validation
        if number == 9:
            watch.report(10)
    report = watch.report(20)
    looks = 2 / 10 * (waiting - idle)  # the two waits right after a look are the device's too
    assert report.data_seconds == pytest.approx(idle + looks)
    assert report.data_seconds + report.compute_seconds == pytest.approx(max(4.0 + looks, waiting), rel=0.15)


def test_each_report_is_of_the_steps_since_the_one_before(clock):
    watch = ThroughputMeter(0, 20, CPU)
    run(watch, clock, 5, waiting=0, learning=4)
    watch.report(5)
    run(watch, clock, 5, waiting=1, learning=1)
    report = watch.report(10)
    assert (report.data_seconds, report.compute_seconds) == (1, 1)
    assert report.seconds_left == 10 * 3, "the end is expected by the whole run's mean"


def test_a_report_says_everything_in_words_and_in_scalars(clock):
    watch = ThroughputMeter(0, 10**9, CPU)
    run(watch, clock, 4, waiting=0.02, learning=0.48)
    report = watch.report(4)
    scalars = report.scalars()
    assert scalars.pop("pace/hours_left") == pytest.approx(0.5 * (10**9 - 4) / 3600)
    assert scalars == pytest.approx({
        "pace/steps_per_second": 2, "pace/data_seconds": 0.02, "pace/compute_seconds": 0.48, "pace/data_share": 0.04,
        "pace/peak_memory_gib": 1.5,
    })  # fmt: skip
    words = str(report)
    assert words.startswith("2 steps/s, waiting for data 4.0% of the time, peak memory 1.50 GiB, expected end ")
    assert datetime.strptime(words[-16:], "%Y-%m-%d %H:%M") > datetime.now()


def test_an_end_that_no_calendar_has_and_memory_that_no_system_tells_stop_nothing(clock, monkeypatch):
    monkeypatch.setattr(throughput, "peak_memory", lambda device: None)
    watch = ThroughputMeter(0, 10**18, CPU)
    assert watch.report(0).data_share == 0
    run(watch, clock, 1, waiting=0, learning=1)
    report = watch.report(1)
    assert "memory" not in str(report) and "pace/peak_memory_gib" not in report.scalars()
