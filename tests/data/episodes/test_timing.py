"""Timing reports against what was put into the stamps, and against a naive count."""

import numpy as np
import pytest

from ofrl_robot.data.episodes.timing import episode_timing, longest_run, measured_rate_hz

PERIOD = 200_000_000  # ns, 5 Hz
MS = 1_000_000


def stamps_of(steps=50, **changes):
    ticks = np.arange(1, steps + 2, dtype=np.int64) * PERIOD
    stamps = {"obs": ticks, "front": ticks.copy(), "state": ticks.copy(), "applied": ticks[:-1] + 1}
    stamps.update(changes)
    return stamps


def timing_of(stamps, cameras=("front",), **more):
    steps = len(stamps["obs"]) - 1
    more.setdefault("intervention", np.zeros(steps, bool))
    more.setdefault("held", np.zeros(steps, bool))
    return episode_timing(stamps, 5.0, cameras, **more)


def test_an_ideal_episode():
    timing = timing_of(stamps_of(), held=np.zeros(50, bool))
    assert timing.steps == 50 and timing.rate_hz == pytest.approx(5.0)
    assert timing.interval_p5_ms == timing.interval_p95_ms == 200.0
    counts = timing.gaps, timing.backwards, timing.late, timing.held, timing.interventions
    assert counts == (0, 0, 0, 0, 0)
    camera = timing.cameras["front"]
    assert camera.age_ms.max == camera.skew_ms.max == camera.lead_ms == 0.0
    assert (camera.repeated, camera.longest_run, camera.backwards) == (0, 0, 0)


def test_ages_and_skew_are_of_the_frame_that_is_shown():
    stamps = stamps_of(100)
    stamps["front"] -= 30 * MS
    stamps["front"][10] -= 70 * MS  # one frame is 100 ms old
    stamps["state"] += 5 * MS
    camera = timing_of(stamps).cameras["front"]
    assert (camera.age_ms.p50, camera.age_ms.p95, camera.age_ms.max) == (30.0, 30.0, 100.0)
    assert (camera.skew_ms.p50, camera.skew_ms.max) == (35.0, 105.0)
    stamps["front"][20] = stamps["obs"][20] + 8 * MS
    assert timing_of(stamps).cameras["front"].lead_ms == 8.0


def test_a_frame_that_stays_is_counted_by_stamp_and_by_pixels():
    stamps = stamps_of(20)
    stamps["front"][5:9] = stamps["front"][4]  # four ticks show it again
    identical = np.zeros(20, bool)
    identical[8:10] = True  # and the pixels stay two ticks longer, with new stamps
    by_stamp = timing_of(stamps).cameras["front"]
    assert (by_stamp.repeated, by_stamp.longest_run) == (4, 4)
    by_both = timing_of(stamps, identical={"front": identical}).cameras["front"]
    assert (by_both.repeated, by_both.longest_run) == (6, 6)


def test_a_clock_that_jumps_shows_as_such_and_not_in_the_rate():
    stamps = stamps_of(60)
    stamps["obs"][30:] -= 7200 * 1000 * MS
    timing = timing_of(stamps)
    assert timing.backwards == 1 and timing.gaps == 0
    assert timing.rate_hz == pytest.approx(5.0)
    stamps["obs"][30:] += 2 * 7200 * 1000 * MS  # and forward
    timing = timing_of(stamps)
    assert (timing.backwards, timing.gaps) == (0, 1) and timing.rate_hz == pytest.approx(5.0)


def test_late_means_more_than_a_period_with_the_jitter_of_a_real_loop():
    stamps = stamps_of(10)
    delays = np.array([0, 1, 199, 200, 201, 209, 211, 300, 5000, -50]) * MS
    stamps["applied"] = stamps["obs"][:-1] + delays
    assert timing_of(stamps).late == 3


@pytest.mark.parametrize("seed", range(20))
def test_counts_agree_with_a_naive_loop(seed):
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(1, 60))
    intervals = rng.choice([1, PERIOD, 2 * PERIOD, 2 * PERIOD + 1, -PERIOD, 0], steps)
    ticks = np.concatenate([[10**18], 10**18 + np.cumsum(intervals)])
    frames = ticks - rng.choice([0, PERIOD], steps + 1)
    held, human = rng.random((2, steps)) < 0.3
    timing = timing_of(
        {"obs": ticks, "front": frames, "state": ticks, "applied": ticks[:-1]},
        held=held,
        intervention=human,
    )
    run = longest = repeated = 0
    for before, after in zip(frames, frames[1:]):
        run = run + 1 if before == after else 0
        repeated, longest = repeated + (before == after), max(longest, run)
    camera = timing.cameras["front"]
    assert (camera.repeated, camera.longest_run) == (repeated, longest)
    assert camera.backwards == sum(
        after < before and interval > 0
        for before, after, interval in zip(frames, frames[1:], intervals)
    )
    assert timing.backwards == sum(i <= 0 for i in intervals)
    assert timing.gaps == sum(i > 2 * PERIOD for i in intervals)
    assert (timing.held, timing.interventions) == (held.sum(), human.sum())
    assert camera.age_ms.max == max(ticks - frames) / MS


@pytest.mark.parametrize(
    "flags, length", [([], 0), ([0], 0), ([1], 1), ([1, 1, 0, 1], 2), ([0, 1, 0, 1, 1, 1], 3)]
)
def test_longest_run(flags, length):
    assert longest_run(np.array(flags, bool)) == length


@pytest.mark.parametrize("stamps", [[], [5], [5, 5], [9, 5]], ids=str)
def test_no_rate_can_be_told_from_that(stamps):
    assert measured_rate_hz(np.array(stamps, np.int64)) == 0.0
