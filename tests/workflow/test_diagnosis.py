"""The verdict on synthetic curves whose right answer is known."""

from __future__ import annotations

from typing import Dict, List, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofrl_robot.errors import CheckpointError
from ofrl_robot.workflow.diagnosis import (
    CLIPPED,
    GOOD,
    NO_VALUE,
    OVERFIT,
    UNDERFIT,
    Diagnosis,
    diagnose,
)

Rows = List[Dict[str, float]]


def rows(q: Sequence[float], every: float = 500, td: float = 0.1) -> Rows:
    return [
        {"step": every * (i + 1), "data_q": float(v), "td_error": td, "target_variance": 1.0}
        for i, v in enumerate(q)
    ]


def peaked(count: int, peak_at: float = 0.35, end: float = 0.4) -> np.ndarray:
    """Rises from 0 to 1 at ``peak_at`` of training, then falls to ``end``."""
    return np.interp(np.linspace(0, 1, count), [0, peak_at, 1], [0, 1, end])


def noise(count: int, scale: float, seed: int) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=count)


def outcome(diagnosis: Diagnosis) -> tuple:
    return diagnosis.verdict, diagnosis.selected_step, diagnosis.peak_step


# -- one curve per verdict ------------------------------------------------------------------


@pytest.mark.parametrize("count", [10, 12, 16, 60, 200])
@pytest.mark.parametrize("seed", range(5))
def test_rise_then_fall_is_overfit_and_the_peak_is_deployed(count, seed):
    curve = peaked(count) + noise(count, 0.02, seed)
    found = diagnose(rows(curve))
    assert found.verdict == OVERFIT
    assert found.selected_step == found.peak_step
    assert found.selected_step == pytest.approx(
        500 * (1 + 0.35 * (count - 1)), abs=0.1 * 500 * count
    )


@pytest.mark.parametrize("count", [8, 12, 16, 60])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", ["line", "saturating", "late start"])
def test_rising_curves_are_good_and_the_last_is_deployed(count, seed, shape):
    x = np.linspace(0, 1, count)
    curve = {"line": x, "saturating": 1 - np.exp(-6 * x), "late start": np.maximum(0, x - 0.5)}
    found = diagnose(rows(curve[shape] + noise(count, 0.02, seed)))
    assert (found.verdict, found.selected_step) == (GOOD, 500 * count)


def test_a_critic_that_misses_its_targets_underfits():
    found = diagnose(rows(np.linspace(0, 1, 12), td=0.8))
    assert (found.verdict, found.selected_step) == (UNDERFIT, 6000)
    assert any("80 %" in reason for reason in found.reasons)


def test_overfitting_is_looked_for_first():
    assert diagnose(rows(peaked(16), td=0.8)).verdict == OVERFIT


def clipped(q: Sequence[float], share: float, td: float) -> Rows:
    return [{**row, "targets_clipped": share, "target_unclipped": -5.0} for row in rows(q, td=td)]


@pytest.mark.parametrize(("td", "otherwise"), [(0.8, UNDERFIT), (0.1, GOOD)])
def test_no_verdict_is_read_off_clipped_targets(td, otherwise):
    """On 10 episodes the critic overfits: with the clip its curve is flat, and the variance of
    its targets collapses, which is what underfitting looks like."""
    flat = np.full(12, 0.3) + noise(12, 0.01, 0)
    found = diagnose(clipped(flat, 0.4, td))
    assert (found.verdict, found.selected_step) == (CLIPPED, 6000)
    assert [c.settings for c in found.corrections] == [{"clip_targets": False}]
    assert any("40 % of the targets were clipped" in reason for reason in found.reasons)
    assert diagnose(clipped(flat, 0.04, td)).verdict == otherwise
    assert diagnose(clipped(peaked(12), 0.4, td)).verdict == OVERFIT


def test_targets_without_variance_underfit_rather_than_divide_by_zero():
    still = [dict(row, target_variance=0.0) for row in rows(np.linspace(0, 1, 8))]
    assert diagnose(still).verdict == UNDERFIT


def test_behavioural_cloning_has_no_verdict():
    found = diagnose([{"step": 500.0 * i, "data_log_prob": i} for i in (1, 2, 3)])
    assert (found.verdict, found.selected_step, found.smoothed_q) == (NO_VALUE, 1500, {})


# -- what must not look like overfitting ------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("count", [8, 12, 16, 30])
def test_a_plateau_of_noise_is_seldom_overfit(count):
    draws = 400
    wrong = sum(
        diagnose(rows(5 + noise(count, 0.1, seed))).verdict == OVERFIT for seed in range(draws)
    )
    assert wrong <= 0.05 * draws


def test_a_fall_smaller_than_a_tenth_of_the_rise_does_not_count():
    assert diagnose(rows(peaked(40, end=0.95))).verdict == GOOD
    assert diagnose(rows(peaked(40, end=0.85))).verdict == OVERFIT


def test_a_dip_that_recovers_does_not_count():
    curve = np.interp(np.linspace(0, 1, 30), [0, 0.3, 0.5, 1], [0, 1, 0.5, 0.98])
    assert diagnose(rows(curve)).verdict == GOOD


def test_one_wild_checkpoint_is_not_the_peak():
    curve = peaked(24)
    curve[2] = 9.0
    assert diagnose(rows(curve)).peak_step == diagnose(rows(peaked(24))).peak_step


def test_a_peak_at_the_very_end_does_not_count():
    curve = np.r_[np.linspace(0, 1, 57), 0.7, 0.6, 0.5]
    assert diagnose(rows(curve)).verdict == GOOD


def test_a_negative_q_is_reported_but_decides_nothing():
    found = diagnose(rows(np.linspace(-3, -1, 12)))
    assert found.verdict == GOOD
    assert any("below 0" in reason for reason in found.reasons)


# -- warm start, short and damaged runs -------------------------------------------------------


def test_a_warm_start_does_not_enter():
    after = rows(np.linspace(0, 1, 12))
    before = rows([50, 40, 30, 20])
    shifted = [dict(row, step=row["step"] + 2000) for row in after]
    found = diagnose(before + shifted, warm_start_steps=2000)
    assert found.verdict == GOOD
    assert min(found.smoothed_q) == 2500


def test_q_that_only_falls_after_the_warm_start_is_overfit_and_says_so():
    found = diagnose(rows(1 - np.linspace(0, 1, 16) + noise(16, 0.02, 0)), warm_start_steps=1000)
    assert found.verdict == OVERFIT
    assert any("little more than imitation" in reason for reason in found.reasons)


def test_too_few_checkpoints_after_a_peak_are_not_judged():
    found = diagnose(rows([0, 0.5, 1, 0.6, 0.5]))
    assert found.verdict == GOOD
    assert any("too few" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    "found, said", [([], "no checkpoint was probed"), (rows([1, 2]), "warm start")]
)
def test_a_run_too_short_to_judge_is_an_error_that_says_what_to_do(found, said):
    with pytest.raises(CheckpointError, match=f"{said}.*train longer"):
        diagnose(found, warm_start_steps=5000)


def test_a_diverged_run_is_read_up_to_the_divergence():
    curve = list(np.linspace(0, 1, 12)) + [np.nan, 1e30]
    found = diagnose(rows(curve))
    assert found.selected_step == 6000
    assert "data_q became non-finite at step 6500" in found.reasons[0]
    assert "lower learning rates" in found.corrections[0].why


def test_a_run_that_diverged_at_once_is_an_error():
    with pytest.raises(CheckpointError, match="data_q is not finite"):
        diagnose(rows([np.inf, 1]))


def test_missing_columns_are_an_error():
    with pytest.raises(CheckpointError, match="td_error"):
        diagnose([{"step": 1.0, "data_q": 0.0}])


def at_steps(*steps: float) -> Rows:
    return [dict(row, step=step) for row, step in zip(rows([1.0] * len(steps)), steps)]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (at_steps(500, 400), "step 400 after 500"),
        (at_steps(500, 500), "step 500 after 500"),
        (at_steps(-1, 500), "step -1 after 0"),
        (at_steps(500.5), "step 500.5"),
        (at_steps(1e300), "step 1e\\+300"),
        ([{"data_q": 1.0, "td_error": 0.1, "target_variance": 1.0}], "lack step"),
    ],
)
def test_steps_that_are_none_are_refused_in_one_line(found, message):
    with pytest.raises(CheckpointError, match=message):
        diagnose(found)


# -- corrections ------------------------------------------------------------------------------


def settings_of(diagnosis: Diagnosis) -> list:
    return [correction.settings for correction in diagnosis.corrections]


def test_each_verdict_has_its_corrections_in_the_order_to_try_them():
    overfit = [{"bottleneck": True}, {"dropout": 0.2}, {"regularization": "l1"}, {}]
    assert settings_of(diagnose(rows(peaked(16)))) == overfit
    underfit = diagnose(rows(np.linspace(0, 1, 12), td=0.8))
    assert settings_of(underfit) == [{"resnet_enc": True}, {"dr3_feat": True}]
    rising = diagnose(rows(np.linspace(0, 1, 12)), settings={"steps": 6000})
    assert settings_of(rising) == [{"steps": 12000, "resume": True}]
    diverged = diagnose(
        rows([*np.linspace(0, 1, 12), np.nan]), settings={"actor_lr": 3e-4, "critic_lr": 1e-3}
    )
    assert settings_of(diverged) == [{"actor_lr": 1e-4, "critic_lr": 3.3e-4}]
    level = diagnose(rows(np.r_[np.linspace(0, 1, 8), np.ones(12)]))
    assert (level.verdict, settings_of(level)) == (GOOD, [{}])


def test_a_correction_that_the_run_had_is_not_advised_again():
    found = diagnose(rows(peaked(16)), settings={"bottleneck": True, "dropout": 0.4})
    assert settings_of(found) == [{"dropout": 0.2}, {"regularization": "l1"}, {}]
    both = {"resnet_enc": True, "dr3_feat": True}
    (left,) = diagnose(rows(np.linspace(0, 1, 12), td=0.8), settings=both).corrections
    assert left.settings == {} and "larger networks" in left.why


# -- properties -------------------------------------------------------------------------------

curves = st.one_of(
    st.lists(st.integers(-1000, 1000), min_size=1, max_size=24),
    st.tuples(st.integers(8, 24), st.floats(0.1, 0.9), st.floats(0, 1), st.integers(0, 99)).map(
        # multiples of 2^-10, so that adding an integer is exact and ties stay ties
        lambda t: np.round(1024 * (peaked(*t[:3]) + noise(t[0], 0.05, t[3]))) / 1024
    ),
)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(curves, st.integers(-4096, 4096))
def test_an_offset_of_q_changes_nothing(curve, offset):
    shifted = diagnose(rows(np.asarray(curve) + offset))
    assert outcome(shifted) == outcome(diagnose(rows(curve)))


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(curves, st.sampled_from([1, 8, 64, 4096]))
def test_the_unit_of_steps_changes_nothing(curve, factor):
    small, large = diagnose(rows(curve, every=1)), diagnose(rows(curve, every=factor))
    assert large.verdict == small.verdict
    assert large.selected_step == factor * small.selected_step


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(curves, st.sampled_from([0.125, 4, 1024]))
def test_the_scale_of_rewards_changes_nothing(curve, factor):
    assert outcome(diagnose(rows(factor * np.asarray(curve)))) == outcome(diagnose(rows(curve)))


@settings(max_examples=80, deadline=None)
@given(curves)
def test_the_choice_is_always_the_peak_or_the_last(curve):
    found = diagnose(rows(curve))
    assert found.smoothed_q[found.peak_step] == max(found.smoothed_q.values())
    expected = found.peak_step if found.verdict == OVERFIT else 500 * len(curve)
    assert found.selected_step == expected
