"""Returns against slow reference implementations that walk through one episode at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofrl_robot.data.replay.returns import monte_carlo, n_step, next_actions, relabel


@st.composite
def transitions(draw):
    """(rewards, terminals, starts) of some episodes; terminals anywhere, mostly at the end."""
    lengths = draw(st.lists(st.integers(1, 7), min_size=1, max_size=6))
    count = sum(lengths)
    value = st.integers(-8, 8).map(lambda k: k / 8)
    rewards = np.array(draw(st.lists(value, min_size=count, max_size=count)), np.float32)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    terminals = np.zeros(count, bool)
    for last in starts[1:] - 1:
        terminals[last] = draw(st.booleans())
    for row in draw(st.lists(st.integers(0, count - 1), max_size=2)):
        terminals[row] = True
    return rewards, terminals, starts


discounts = st.sampled_from([0.0, 0.5, 0.9, 1.0])


def located(starts):
    """Every transition: (index, first row past its episode)."""
    for start, stop in zip(starts[:-1], starts[1:]):
        for index in range(start, stop):
            yield index, stop


@pytest.mark.slow
@given(transitions(), st.integers(1, 9), discounts)
def test_n_step_is_a_walk_to_the_end_of_the_episode(data, n, discount):
    rewards, terminals, starts = data
    index, stops = np.array(list(located(starts))).T
    sums, steps, ended = n_step(rewards, terminals, index, stops - index, n, discount)
    for k, (row, stop) in enumerate(located(starts)):
        total, walked, over = 0.0, 0, False
        while walked < n and row < stop and not over:
            total += discount**walked * float(rewards[row])
            over = bool(terminals[row])
            row, walked = row + 1, walked + 1
        assert (steps[k], ended[k]) == (walked, over)
        assert sums[k] == pytest.approx(total, abs=1e-6)
    assert sums.dtype == np.float32 and ended.dtype == bool


@pytest.mark.slow
@given(transitions(), discounts)
def test_one_step_is_the_reward_itself(data, discount):
    rewards, terminals, starts = data
    index, stops = np.array(list(located(starts))).T
    sums, steps, ended = n_step(rewards, terminals, index, stops - index, 1, discount)
    np.testing.assert_array_equal(sums, rewards)
    np.testing.assert_array_equal(ended, terminals)
    assert (steps == 1).all()


@pytest.mark.slow
@given(transitions(), discounts)
def test_monte_carlo_is_the_sum_to_the_end_of_the_episode(data, discount):
    rewards, terminals, starts = data
    returns = monte_carlo(rewards, terminals, starts, discount)
    for row, stop in located(starts):
        total, weight = 0.0, 1.0
        for k in range(row, stop):
            total += weight * float(rewards[k])
            weight *= discount * (not terminals[k])
        assert returns[row] == pytest.approx(total, abs=1e-5)
    assert returns.dtype == np.float32 and len(returns) == len(rewards)


@pytest.mark.slow
@given(transitions(), discounts)
def test_enough_steps_are_the_monte_carlo_return(data, discount):
    rewards, terminals, starts = data
    index, stops = np.array(list(located(starts))).T
    sums, _, _ = n_step(rewards, terminals, index, stops - index, 10, discount)
    np.testing.assert_allclose(
        sums, monte_carlo(rewards, terminals, starts, discount), rtol=0, atol=1e-5
    )


@pytest.mark.slow
@given(transitions(), st.integers(1, 4))
def test_next_actions_stay_in_the_episode(data, n):
    rewards, terminals, starts = data
    actions = np.arange(2.0 * len(rewards), dtype=np.float32).reshape(-1, 2)
    index, stops = np.array(list(located(starts))).T
    _, steps, _ = n_step(rewards, terminals, index, stops - index, n, 1.0)
    following, valid = next_actions(actions, index, stops - index, steps)
    for k, (row, stop) in enumerate(located(starts)):
        assert valid[k] == (row + steps[k] < stop)
        np.testing.assert_array_equal(following[k], actions[min(row + steps[k], stop - 1)])


def test_a_timeout_bootstraps_and_a_terminal_does_not():
    rewards = np.array([0, 0, 1, 0, 0, 1], np.float32)
    terminals = np.array([0, 0, 1, 0, 0, 0], bool)  # the second episode ran out of time
    index = np.array([1, 4])
    sums, steps, ended = n_step(rewards, terminals, index, np.array([2, 2]), 5, 0.5)
    np.testing.assert_array_equal(sums, [0.5, 0.5])
    np.testing.assert_array_equal(steps, [2, 2])
    np.testing.assert_array_equal(ended, [True, False])


def test_relabelling_keeps_float32_and_its_identity():
    rewards = np.array([0.1, 1.0, -2.5], np.float32)
    np.testing.assert_array_equal(relabel(rewards, 1.0, 0.0), rewards)
    np.testing.assert_array_equal(relabel(rewards, 0.0, 0.0), [0, 0, 0])
    np.testing.assert_array_equal(relabel(np.array([0, 1], np.float32), 10.0, -1.0), [-1, 9])
    assert relabel(rewards, 2.0, 1.0).dtype == np.float32
