"""modules/training/throughput.py: the figures agree with a fake clock."""

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


def run(meter, clock, steps, *, waiting, computing, aside=0.0):
    """Make steps that wait and compute for so many seconds each, with ``aside`` seconds after each."""

    def loader():
        for number in range(steps):
            clock[0] += waiting
            yield number

    for _ in meter.batches(loader()):
        clock[0] += computing
        meter.step_done()
        clock[0] += aside


def test_waiting_computing_and_other_time_are_distinguished(clock):
    meter = ThroughputMeter(100, 150, CPU)
    run(meter, clock, 10, waiting=0.5, computing=1.5, aside=2.0)
    assert meter.data_share == 0.25
    report = meter.report(110)
    assert (report.data_seconds, report.compute_seconds, report.data_share) == (0.5, 1.5, 0.25)
    assert report.steps_per_second == 0.5
    assert report.seconds_left == 40 * 4.0, "validations and checkpoints count in the expected end"


class Device:
    """A fake CUDA device that works through a queue while the program goes on."""

    def __init__(self, clock):
        self.clock, self.busy_until = clock, 0.0

    def enqueue(self, seconds):
        self.busy_until = max(self.busy_until, self.clock[0]) + seconds

    def event(self, enable_timing):
        assert enable_timing
        return Event(self)


class Event:
    def __init__(self, device):
        self.device = device

    def record(self):
        self.moment = max(self.device.busy_until, self.device.clock[0])

    def query(self):
        return self.moment <= self.device.clock[0]

    def elapsed_time(self, later):
        assert self.query() and later.query()
        return 1000 * (later.moment - self.moment)


@pytest.mark.parametrize(("waiting", "idle"), [(1.0, 0.0), (3.5, 0.0), (10.0, 6.0)])
def test_a_device_with_queued_steps_does_not_wait_for_data(clock, monkeypatch, waiting, idle):
    device = Device(clock)
    monkeypatch.setattr(torch.cuda, "Event", device.event)
    meter = ThroughputMeter(0, 20, torch.device("cuda"))

    def loader():
        for number in range(20):
            clock[0] += waiting
            yield number

    for number in meter.batches(loader()):
        device.enqueue(4.0)
        synchronizes = number % 5 == 4
        if synchronizes:  # waits for the device
            clock[0] = max(clock[0], device.busy_until)
        meter.step_done()
        share = meter.data_share
        if synchronizes:
            assert share > 0, "the wait after the previous synchronization"
            clock[0] += 50  # a validation
        if number == 9:
            meter.report(10)
    report = meter.report(20)
    after_sync = 2 / 10 * (waiting - idle)  # in the two waits right after a synchronization the device is idle too
    assert report.data_seconds == pytest.approx(idle + after_sync)
    assert report.data_seconds + report.compute_seconds == pytest.approx(max(4.0 + after_sync, waiting), rel=0.15)


def test_each_report_covers_the_steps_since_the_previous_one(clock):
    meter = ThroughputMeter(0, 20, CPU)
    run(meter, clock, 5, waiting=0, computing=4)
    meter.report(5)
    run(meter, clock, 5, waiting=1, computing=1)
    report = meter.report(10)
    assert (report.data_seconds, report.compute_seconds) == (1, 1)
    assert report.seconds_left == 10 * 3, "the expected end uses the mean over the whole run"


def test_a_report_has_all_figures_as_text_and_as_scalars(clock):
    meter = ThroughputMeter(0, 10**9, CPU)
    run(meter, clock, 4, waiting=0.02, computing=0.48)
    report = meter.report(4)
    scalars = report.scalars()
    assert scalars.pop("pace/hours_left") == pytest.approx(0.5 * (10**9 - 4) / 3600)
    assert scalars == pytest.approx({
        "pace/steps_per_second": 2, "pace/data_seconds": 0.02, "pace/compute_seconds": 0.48, "pace/data_share": 0.04,
        "pace/peak_memory_gib": 1.5,
    })  # fmt: skip
    words = str(report)
    assert words.startswith("2 steps/s, waiting for data 4.0% of the time, peak memory 1.50 GiB, expected end ")
    assert datetime.strptime(words[-16:], "%Y-%m-%d %H:%M") > datetime.now()


def test_an_end_beyond_the_calendar_and_unknown_memory_are_no_errors(clock, monkeypatch):
    monkeypatch.setattr(throughput, "peak_memory", lambda device: None)
    meter = ThroughputMeter(0, 10**18, CPU)
    assert meter.report(0).data_share == 0
    run(meter, clock, 1, waiting=0, computing=1)
    report = meter.report(1)
    assert "memory" not in str(report) and "pace/peak_memory_gib" not in report.scalars()
