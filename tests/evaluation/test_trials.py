"""Success rates: the interval against known values, and what counts as a success."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofrl_robot.control.signals import AppliedAction, Tick
from ofrl_robot.data.episodes.schema import FAILURE, SUCCESS, UNKNOWN, EpisodeMeta
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.errors import DatasetError
from ofrl_robot.evaluation.trials import rate_text, report_trials, wilson
from ofrl_robot.specs import WIDOWX_ACTION, widowx_observation

OBSERVATION = widowx_observation(8)
POLICY = {
    "checkpoint": "a/step_1.safetensors",
    "sha256": "a",
    "algo": "cql",
    "step": 1,
    "action_choice": "mode",
}


def record(folder, label, abort="", actor="policy", finish=True, helped=False, **meta):
    """A one-step episode through the real writer; ``helped``: a human overrode the policy."""
    folder.mkdir(exist_ok=True)
    writer = EpisodeWriter(
        folder, EpisodeMeta("sim", "Task-v0", WIDOWX_ACTION, OBSERVATION, 5.0, actor=actor, **meta)
    )
    image, action = np.zeros((8, 8, 3), np.uint8), np.zeros(WIDOWX_ACTION.size)
    writer.observe(Tick(1, 0, {"image": image}, np.zeros(10)))
    writer.act(AppliedAction(1, action, action, "human", intervention=helped))
    writer.observe(Tick(2, 1, {"image": image}, np.zeros(10), truncated=True))
    return writer.finish(label, "simulator", abort) if finish else writer


# -- interval ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "successes, trials, low, high",
    [
        # Wilson 1927, worked by hand; for k = n the lower end is n / (n + 1.96^2)
        (47, 50, 0.8378, 0.9794),
        (0, 50, 0.0, 0.0713),
        (50, 50, 0.9287, 1.0),
        (1, 1, 0.2065, 1.0),
        # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_against_published_values(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_rate_and_mirrors(pair):
    successes, trials = pair
    low, high = wilson(successes, trials)
    assert 0.0 <= low <= successes / trials + 1e-12 and successes / trials - 1e-12 <= high <= 1.0
    mirrored = wilson(trials - successes, trials)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-9)


def test_rates_in_words():
    assert rate_text(47, 50) == "47/50 = 94 % (Wilson 95 %: 84-98 %)"
    assert rate_text(0, 0) == "0/0"


# -- counting ---------------------------------------------------------------------------------


def test_unlabelled_trials_count_as_tried_and_aborted_ones_not_at_all(tmp_path):
    record(tmp_path, SUCCESS, seed=3)
    record(tmp_path, FAILURE)
    record(tmp_path, UNKNOWN)
    record(tmp_path, UNKNOWN, abort="watchdog")
    record(tmp_path, SUCCESS, abort="operator")  # stopped after the label: not a clean success
    found = report_trials(tmp_path)
    assert (found.successes, found.trials, found.unknown, found.aborted) == (1, 3, 1, 2)
    assert found.line() == (
        "1/3 = 33 % (Wilson 95 %: 6-79 %), 1 without a label, 2 aborted (not counted)"
    )
    assert found.rows[0] == {"file": "episode_000000.h5", "seed": 3, "label": "success",
                             "steps": 1, "abort_reason": "", "interventions": 0}  # fmt: skip
    assert [row["abort_reason"] for row in found.rows[3:]] == ["watchdog", "operator"]


def test_a_success_with_help_is_not_the_policys(tmp_path):
    for label, helped, abort in (
        (SUCCESS, False, ""), (SUCCESS, True, ""), (FAILURE, True, ""), (SUCCESS, True, "operator"),
    ):  # fmt: skip
        record(tmp_path, label, abort, helped=helped, policy=POLICY)
    found = report_trials(tmp_path)
    assert (found.successes, found.trials, found.helped, found.helped_successes) == (1, 3, 2, 1)
    assert found.line().startswith("1/3 = 33 %")
    assert found.line().endswith("without help, 1 of 2 with help, 1 aborted (not counted)")
    data = json.loads(found.to_json())
    assert data["helped"] == 2 and [row["interventions"] for row in data["rows"]] == [0, 1, 1, 1]


def test_when_every_trial_was_aborted_nothing_was_measured(tmp_path):
    record(tmp_path, UNKNOWN, "operator")
    found = report_trials(tmp_path)
    assert found.line() == "0/0, 1 aborted (not counted)" and found.interval == (0.0, 1.0)


def test_only_what_is_on_disk_counts(tmp_path):
    paths = [record(tmp_path, SUCCESS) for _ in range(3)]
    running = record(tmp_path, SUCCESS, finish=False)
    (tmp_path / "notes.txt").write_text("100/100")
    assert report_trials(tmp_path).trials == 3
    paths[1].unlink()
    assert report_trials(tmp_path).line().startswith("2/2")
    running.discard()
    assert report_trials(tmp_path).trials == 2


def test_identity_of_who_acted(tmp_path):
    record(tmp_path, SUCCESS, policy=POLICY)
    record(tmp_path, SUCCESS, policy={**POLICY, "checkpoint": "/moved/step_1.safetensors"})
    found = report_trials(tmp_path)
    assert (found.policy, found.actor, found.task, found.robot) == (
        POLICY, "policy", "Task-v0", "sim",
    )  # fmt: skip


@pytest.mark.parametrize("change", [{"sha256": "b"}, {"action_choice": "max_q"}])
def test_several_policies_in_one_folder_are_not_taken_for_one(tmp_path, change):
    record(tmp_path, SUCCESS, policy=POLICY)
    record(tmp_path, FAILURE, policy={**POLICY, **change})
    assert report_trials(tmp_path).policy == {"mixed": 2}


def test_episodes_from_before_max_q_are_counted_with_those_after(tmp_path):
    old = {k: v for k, v in POLICY.items() if k != "action_choice"}
    record(tmp_path, SUCCESS, policy={**old, "sample": False})
    record(tmp_path, FAILURE, policy=POLICY)
    assert report_trials(tmp_path).policy["sha256"] == "a"
    record(tmp_path, FAILURE, policy={**old, "sample": True})
    assert report_trials(tmp_path).policy == {"mixed": 2}


def test_several_actors_are_all_named(tmp_path):
    record(tmp_path, SUCCESS, actor="teleop")
    record(tmp_path, FAILURE, actor="scripted")
    found = report_trials(tmp_path)
    assert (found.actor, found.policy) == ("scripted, teleop", {})


def test_json_holds_the_interval(tmp_path):
    record(tmp_path, SUCCESS)
    data = json.loads(report_trials(tmp_path).to_json())
    assert (data["successes"], data["trials"]) == (1, 1)
    assert data["wilson_low"] == pytest.approx(0.2065, abs=1e-4) and data["wilson_high"] == 1.0


def test_a_trial_that_cannot_be_read_is_named_and_nothing_is_counted(tmp_path):
    paths = [record(tmp_path, SUCCESS) for _ in range(3)]
    paths[1].write_bytes(paths[1].read_bytes()[:500])
    with pytest.raises(DatasetError, match=paths[1].name):
        report_trials(tmp_path)


def test_an_empty_or_missing_folder_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="no episode"):
        report_trials(tmp_path)
    with pytest.raises(DatasetError, match="no such dataset folder"):
        report_trials(tmp_path / "nowhere")
