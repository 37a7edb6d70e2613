"""The scheduler in virtual time: the delay is the printed one, and an overload leaves nothing behind."""

import numpy as np
import pytest

from live.delays import MARGIN, Delays, reserve_for
from live.scheduler import SETTLED
from modules.console import UserError
from tests.live_stands import BLOCK, RATE, PassThrough, simulate

BLOCK_SECONDS = BLOCK / RATE


def chirp(seconds=1.0, rate=RATE, seed=None):
    """A linear chirp from 100 Hz to 8 kHz."""
    t = np.arange(int(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * (100 * t + 3950 / seconds * t**2))).astype(np.float32)


def noise(seconds, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, int(seconds * RATE)).astype(np.float32)


def measured_delay(sound, output):
    """The delay in samples, by correlation."""
    size = 1 << (len(sound) + len(output)).bit_length()
    return int(np.fft.irfft(np.fft.rfft(output, size) * np.fft.rfft(sound, size).conj()).argmax())


def counting(seconds):
    """A sound in which each sample is its number, from 1 on, so that its age can be read off."""
    return np.arange(1, int(seconds * RATE) + 1, dtype=np.float32)


def ages(output):
    """The delay of each sample of a converted ``counting``; NaN in gaps, fades and at jumps."""
    age = np.arange(1, len(output) + 1) - output.astype(np.float64)
    plain = (np.diff(output, prepend=0) == 1) & (output > 1)
    return np.where(plain, age, np.nan)


def largest_step(output):
    """The largest second difference, which a jump makes large and a fade does not."""
    return np.abs(np.diff(output)).max()


@pytest.mark.parametrize("look_ahead", [0, 4096])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_chirp_comes_out_after_the_printed_sum_to_the_sample(look_ahead, channels):
    sound = np.concatenate((chirp(), np.zeros(2 * RATE, np.float32)))
    device = sound if channels == 1 else np.stack((sound, sound), axis=1)
    output, session = simulate(device, lambda number: 0.05, PassThrough(look_ahead=look_ahead))
    printed = session.delays().total * RATE
    assert measured_delay(sound, output) == round(printed)
    assert printed == pytest.approx(round(printed), abs=1e-6)
    delay = round(printed)
    assert np.array_equal(output[delay : delay + RATE], sound[:RATE])  # and unchanged
    assert session.scheduler.underruns == session.scheduler.overruns == 0


@pytest.mark.parametrize("rate", [48000, 16000, 96000])
def test_the_sum_holds_for_a_device_of_another_rate(rate):
    sound = np.concatenate((chirp(rate=rate), np.zeros(2 * rate, np.float32)))
    output, session = simulate(sound, lambda number: 0.05, rate=rate, buffer=rate // 100)
    printed = session.delays().total * rate
    assert abs(measured_delay(sound, output) - printed) <= 1
    assert session.scheduler.underruns == 0


def test_a_fixed_delay_is_the_total_whatever_the_parts_are():
    sound = np.concatenate((chirp(), np.zeros(2 * RATE, np.float32)))
    output, session = simulate(sound, lambda number: 0.05, device_delay=0.1, fixed_delay=0.8)
    assert session.delays().total == pytest.approx(0.8, abs=1 / RATE)
    assert abs(measured_delay(sound, output) + 0.1 * RATE - 0.8 * RATE) <= 1


def test_a_fixed_delay_that_is_too_short_is_refused_with_the_least_one():
    others = Delays(0.3, 0.1, 0)
    with pytest.raises(UserError, match="0.471"):
        reserve_for(0.45, others, 0.07)
    assert reserve_for(0.471, others, 0.07) == pytest.approx(0.071)


def test_after_a_stall_of_three_seconds_the_first_block_in_time_has_the_former_delay():
    """One gap between two fades, counted; the sound whose time has passed is dropped."""
    stalled = 20
    output, session = simulate(counting(20), lambda number: 3.0 if number == stalled else 0.05)
    scheduler = session.scheduler
    delay = round(session.delays().total * RATE)
    age = ages(output)
    assert set(age[~np.isnan(age)]) == {delay}
    assert scheduler.underruns == 1
    silent = np.flatnonzero(np.isnan(age[delay + 1 :])) + delay + 1
    assert len(silent) == silent[-1] - silent[0] + 1  # one gap
    # It begins a fade before the stalled block is due, and ends within two blocks and a fade after the stall.
    assert silent[0] == delay + stalled * BLOCK - scheduler.fade + 1
    end_of_stall = (stalled + 1) * BLOCK + 3 * RATE
    assert silent[-1] < end_of_stall + 2 * BLOCK + scheduler.fade
    assert 10 <= scheduler.overruns <= 3.0 / BLOCK_SECONDS + 1
    assert session.converter.skipped == scheduler.overruns * BLOCK  # they remain context of the next block


def test_the_fades_of_a_stall_make_no_click():
    t = np.arange(20 * RATE) / RATE
    tone = (0.5 * np.sin(2 * np.pi * 220 * t)).astype(np.float32)
    output, session = simulate(tone, lambda number: 3.0 if number == 20 else 0.05)
    assert session.scheduler.underruns == 1
    # A jump of -40 dB below the tone would be 0.005 beyond the tone's own steepest step.
    assert largest_step(output) < largest_step(tone) + 0.005 * 0.5


def jitter(number):
    """Most blocks take 45 ms, one in a hundred 99 to 107."""
    return 0.03 + min(0.077, np.random.default_rng(number).exponential(0.015))


CALIBRATION = [jitter(100_000 + n) for n in range(200)]


def test_jitter_makes_no_gap_with_the_chosen_margin():
    sound = noise(200)
    output, session = simulate(sound, jitter, calibration=CALIBRATION)
    assert (session.scheduler.underruns, session.scheduler.overruns) == (0, 0)
    delay = round(session.delays().total * RATE)
    assert np.array_equal(output[delay:], sound[:-delay])


def test_without_the_margin_jitter_makes_gaps(monkeypatch):
    monkeypatch.setattr("live.session.MARGIN", 0.0)
    _, session = simulate(noise(200), jitter, calibration=CALIBRATION)
    assert session.scheduler.underruns > 0


def test_a_slow_minute_raises_the_delay_within_its_bound_and_it_returns():
    slow = range(40, 40 + round(60 / BLOCK_SECONDS))

    def seconds(number):
        return 0.8 * BLOCK_SECONDS if number in slow else 0.05

    output, session = simulate(counting(100), seconds)
    scheduler = session.scheduler
    first = scheduler.block + scheduler.port + scheduler.least
    age = ages(output)
    assert first < np.nanmax(age) <= first + BLOCK + round(MARGIN * RATE)  # the stated bound
    assert scheduler.underruns <= 3  # not one for each of the 235 slow blocks
    tail = age[(slow.stop + SETTLED + 3) * BLOCK + first :]
    assert set(tail) == {first} and scheduler.delay == first


def test_a_computer_that_is_too_slow_drops_blocks_and_its_delay_does_not_grow():
    output, session = simulate(counting(60), lambda number: 1.1 * BLOCK_SECONDS)
    scheduler = session.scheduler
    first = scheduler.block + scheduler.port + scheduler.least
    age = ages(output)
    assert scheduler.overruns > 10
    assert np.isnan(age).mean() < 0.7  # some blocks are heard
    assert np.nanmax(age) <= first + BLOCK + round(MARGIN * RATE)


def test_the_same_script_gives_the_same_output():
    sound = noise(10)
    (first, _), (second, _) = (simulate(sound, jitter) for _ in range(2))
    assert np.array_equal(first, second)
