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
from ofrl_robot.evaluation.conditions import seed_words
from ofrl_robot.evaluation.trials import rate_text, report_groups, report_trials, wilson
from ofrl_robot.specs import WIDOWX_ACTION, widowx_observation

OBSERVATION = widowx_observation(8)
POLICY = {
    "checkpoint": "a/step_1.safetensors",
    "sha256": "a",
    "algo": "cql",
    "step": 1,
    "action_choice": "mode",
}


def record(folder, label, abort="", finish=True, helped=False, **meta):
    """A one-step episode through the real writer; ``helped``: a human overrode the policy."""
    folder.mkdir(exist_ok=True)
    known = {"task": "Task-v0", "control_rate_hz": 5.0, "actor": "policy", **meta}
    writer = EpisodeWriter(
        folder,
        EpisodeMeta(robot="sim", action_spec=WIDOWX_ACTION, observation_spec=OBSERVATION, **known),
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
        "1/3 = 33 % (Wilson 95 %: 6-79 %), 1 without a label, 2 aborted (not counted); "
        "Task-v0 on sim, hardware, 5 Hz, policy, seed 3"
    )
    assert found.rows[0] == {
        "file": "episode_000000.h5", "seed": 3, "label": "success", "steps": 1,
        "abort_reason": "", "interventions": 0, "pictures": {},
    }  # fmt: skip
    assert [row["abort_reason"] for row in found.rows[3:]] == ["watchdog", "operator"]


def test_a_success_with_help_is_not_the_policys(tmp_path):
    for label, helped, abort in (
        (SUCCESS, False, ""), (SUCCESS, True, ""), (FAILURE, True, ""), (SUCCESS, True, "operator"),
    ):  # fmt: skip
        record(tmp_path, label, abort, helped=helped, policy=POLICY)
    found = report_trials(tmp_path)
    assert (found.successes, found.trials, found.helped, found.helped_successes) == (1, 3, 2, 1)
    assert found.line().startswith("1/3 = 33 %")
    assert "without help, 1 of 2 with help, 1 aborted (not counted);" in found.line()
    data = json.loads(found.to_json())
    assert data["helped"] == 2 and [row["interventions"] for row in data["rows"]] == [0, 1, 1, 1]


def test_when_every_trial_was_aborted_nothing_was_measured(tmp_path):
    record(tmp_path, UNKNOWN, "operator")
    found = report_trials(tmp_path)
    assert found.line().startswith("0/0, 1 aborted (not counted);")
    assert found.interval == (0.0, 1.0)


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
    assert (found.policy, found.conditions.actor, found.trials) == (POLICY, "policy", 2)


def test_episodes_from_before_max_q_are_counted_with_those_after(tmp_path):
    old = {k: v for k, v in POLICY.items() if k != "action_choice"}
    record(tmp_path, SUCCESS, policy={**old, "sample": False})
    record(tmp_path, FAILURE, policy=POLICY)
    assert report_trials(tmp_path).policy["sha256"] == "a"
    record(tmp_path, FAILURE, policy={**old, "sample": True})
    assert [r.conditions.action_choice for r in report_groups(tmp_path)] == ["mode", "sample"]


# -- pictures ---------------------------------------------------------------------------------


def test_the_pictures_of_the_trials_in_one_line(tmp_path):
    record(tmp_path, SUCCESS, **{"policy": POLICY, "pictures": {}})
    assert report_trials(tmp_path).picture_line() == ""
    inside = {"score": 0.5, "outside": False, "words": "as in the data"}
    for score in (0.5, 0.9):
        record(tmp_path, SUCCESS, policy=POLICY, pictures={**inside, "score": score})
    assert report_trials(tmp_path).picture_line() == (
        "pictures: as in the training data; score 0.70 (mean), 0.90 (largest); "
        "99 % of the data are below 1"
    )
    hovers = record(tmp_path / "h", FAILURE, policy=POLICY, pictures={**inside, "score": 1.4})
    assert "the arm goes elsewhere; score 1.40" in report_trials(hovers.parent).picture_line()
    outside = {"score": 2.0, "outside": True, "words": "camera image: left side 30 darker"}
    record(tmp_path, FAILURE, policy=POLICY, pictures=outside)
    line = report_trials(tmp_path).picture_line()
    assert line.startswith("pictures: 1 of 3 trials are outside the training data; ")
    assert "2.00 (largest)" in line and line.endswith("camera image: left side 30 darker")
    data = json.loads(report_trials(tmp_path).to_json())
    assert data["rows"][-1]["pictures"] == outside


# -- conditions -------------------------------------------------------------------------------

SIM = {"image_size": 8, "sim_backend": "embedded", "realism": "off", "control_rate_hz": 5}
TRIAL = {"policy": POLICY, "environment": SIM, "seed": 7}


@pytest.mark.parametrize(
    "change, word",
    [
        ({"environment": {**SIM, "sim_backend": "roboverse"}}, "roboverse"),
        ({"environment": {**SIM, "realism": "mild,light_gradient=30"}}, "light_gradient=30"),
        ({"environment": {**SIM, "num_objects": 5}}, "num objects 5"),
        ({"environment": {"exposure": 3}}, "hardware"),
        ({"action_latency": 0.04}, "answers after 40 ms"),
        ({"policy": {**POLICY, "action_choice": "max_q"}}, "max-Q"),
        ({"policy": {**POLICY, "step": 2}}, "step 2"),
        ({"policy": {**POLICY, "sha256": "b"}}, "(b)"),
        ({"policy": {}, "actor": "teleop"}, "teleop"),
        ({"task": "Other-v0"}, "Other-v0 on sim"),
        ({"control_rate_hz": 10.0}, "10 Hz"),
    ],
)
def test_trials_under_other_conditions_are_never_pooled(tmp_path, change, word):
    record(tmp_path, SUCCESS, **TRIAL)
    record(tmp_path, FAILURE, **{**TRIAL, **change})
    record(tmp_path, SUCCESS, **TRIAL)
    first, second = report_groups(tmp_path)
    assert (first.successes, first.trials, second.trials) == (2, 2, 1)
    assert word in second.line() and word not in first.line()
    with pytest.raises(DatasetError, match="2 different conditions"):
        report_trials(tmp_path)


def test_a_row_names_its_conditions(tmp_path):
    for seed in (9, 7, 8, 8):
        record(tmp_path, SUCCESS, **{**TRIAL, "seed": seed})
    found = report_trials(tmp_path)
    assert found.line().endswith(
        "; Task-v0 on sim, embedded, realism off, 5 Hz, cql step 1 (a) deterministic, "
        "seeds 7-9 (1 of the trials repeat a seed)"
    )
    data = json.loads(found.to_json())
    assert data["conditions"]["backend"] == "embedded" and data["conditions"]["realism"] == "off"
    assert data["conditions"]["action_choice"] == "mode" and data["seeds"].startswith("seeds 7-9")
    assert data["conditions"]["settings"] == {} and data["conditions"]["control_rate_hz"] == 5.0


def test_arms_with_other_settings_have_other_rows(tmp_path):
    for exposure in (3, 4):
        record(tmp_path, SUCCESS, policy=POLICY, environment={"exposure": exposure})
    lines = [report.line() for report in report_groups(tmp_path)]
    assert len(set(lines)) == 2 and all("no seeds" in line for line in lines)


def test_a_setting_that_an_older_version_did_not_record_is_the_default(tmp_path):
    record(tmp_path, SUCCESS, **TRIAL)
    record(tmp_path, SUCCESS, **{**TRIAL, "environment": {**SIM, "roboverse_bugs": False}})
    assert report_trials(tmp_path).trials == 2


@pytest.mark.parametrize(
    "seeds, words",
    [
        ([5], "seed 5"),
        ([3, 7, 6, 5], "seeds 3, 5-7"),
        ([1, 1, 1], "seed 1 (2 of the trials repeat a seed)"),
        ([-1, -1], "no seeds"),
        ([], "no seeds"),
    ],
)
def test_seeds_in_words(seeds, words):
    assert seed_words(seeds) == words


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
