"""`ofrl stress`: the grid, pairing, resuming, and what is refused."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from ofrl_robot.errors import ConfigError, DatasetError, RobotError
from ofrl_robot.evaluation import stress
from ofrl_robot.evaluation.stress import GRID, UNDISTURBED, Trials, disturbances, read_stress
from ofrl_robot.evaluation.trials import wilson
from ofrl_robot.processes import Lost
from ofrl_robot.sim.options import SimOptions
from ofrl_robot.sim.realism import SETTINGS
from tests.run_factory import TASK, record_episodes

IDENTITY = {"sha256": "a" * 64, "algo": "cql", "step": 500, "action_choice": "mode"}
LIGHT, LATE = "light_gradient=30", "camera_latency=2"


@pytest.fixture
def policy():
    return SimpleNamespace(identity=lambda: IDENTITY, header=SimpleNamespace(task=TASK))


@pytest.fixture
def trials(tmp_path):
    return Trials(tmp_path / "c.safetensors", "mode", SimOptions(image_size=8), 0, 8, tmp_path)


@pytest.fixture
def outcomes(monkeypatch, trials):
    """Labels of each realism's trials; what is recorded is noted under "recorded"."""
    labels = {"off": [1] * 8, "recorded": []}

    def recorded(work, rows, seconds, workers):
        for index, row in enumerate(rows):
            labels["recorded"].append(row.realism)
            if isinstance(labels[row.realism], Lost):
                yield index, labels[row.realism]
            else:
                write(work, row, labels[row.realism])
                yield index, 8

    monkeypatch.setattr(stress, "watched_map", recorded)
    return labels


def write(trials, row, labels, policy=IDENTITY, **meta):
    environment = {"sim_backend": "embedded", "realism": row.realism, "image_size": 8}
    pictures = {"score": 0.5 if row.disturbed else 0.25}
    record_episodes(
        trials.row_folder(row), labels, actor="policy", policy=policy, environment=environment,
        pictures=pictures, **meta,
    )  # fmt: skip


def run(trials, texts, policy, base="off"):
    *_, last = stress.run_stress(trials, disturbances(texts, base), policy, 2)
    return last


# -- the grid --------------------------------------------------------------------------------


def test_the_usual_grid_has_every_setting_that_one_can_disturb_by_itself():
    names = {name for name, _ in GRID}
    # noise of the state and lag of the joints change what is trained on, not what is seen
    assert set(SETTINGS) - names == {"position_noise_m", "lag_s", "stiction_rad"}
    rows = disturbances((), "off")
    assert rows[0].name == UNDISTURBED and rows[0].realism == "off"
    assert len(rows) == 1 + sum(len(values) for _, values in GRID)
    assert ("light_gradient", "30", "light_gradient=30") in {
        (row.name, row.value, row.realism) for row in rows
    }


def test_own_disturbances_come_on_top_of_the_base():
    rows = disturbances(["light_gradient = 30", "exposure=0.1,white_balance=0.1"], "mild")
    assert [row.realism for row in rows] == [
        "mild", "mild,light_gradient=30", "mild,exposure=0.1,white_balance=0.1",
    ]  # fmt: skip
    assert (rows[2].name, rows[2].value) == ("exposure=0.1,white_balance=0.1", "")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["light_gradient"], "disturbance 'light_gradient' has no value; use NAME=VALUE"),
        (["light=3"], "realism has no setting 'light'"),
        (["exposure=3"], "exposure is 3; use 0..0.5"),
        (["exposure=0.1", "exposure=0.1"], "exposure=0.1 is there twice"),
    ],
)
def test_impossible_disturbances_are_refused(texts, message):
    with pytest.raises(ConfigError) as refused:
        disturbances(texts, "off")
    assert message in str(refused.value)


# -- counting --------------------------------------------------------------------------------


def test_rows_are_paired_with_the_undisturbed_one(trials, outcomes, policy):
    outcomes.update({"off": [1] * 7 + [0], LIGHT: [0] * 6 + [1, 1], LATE: [1] * 7 + [0]})
    found = run(trials, [LIGHT, LATE], policy)
    plain, light, late = found.rows
    assert (plain.k, plain.n, plain.lost, plain.gained, plain.p) == (7, 8, 0, 0, 1.0)
    assert (light.k, light.lost, light.gained) == (2, 6, 1)
    assert light.p == pytest.approx(0.125) and not light.sensitive
    assert light.interval == wilson(2, 8) and light.seeds == "seeds 0-7"
    assert (late.k, late.lost, late.gained, late.sensitive) == (7, 0, 0, False)
    assert (light.backend, light.action_choice, light.control_rate_hz) == ("embedded", "mode", 5.0)
    assert (plain.picture_score, light.picture_score) == (0.25, 0.5)
    assert found.lines() == ["no disturbance cost more trials than chance explains"]


def test_what_costs_more_than_chance_is_named(trials, outcomes, policy):
    outcomes.update({LIGHT: [0] * 8, LATE: [0] * 2 + [1] * 6})
    found = run(trials, [LIGHT, LATE], policy)
    assert [row.sensitive for row in found.rows] == [False, True, False]
    assert found.lines() == [
        "sensitive to light_gradient 30: 0/8 instead of 8/8 (8 lost, 0 gained, p = 0.0078)"
    ]


def test_a_policy_that_wins_nothing_has_nothing_to_lose(trials, outcomes, policy):
    outcomes.update({"off": [0] * 8, LIGHT: [0] * 8})
    assert run(trials, [LIGHT], policy).lines()[0].startswith("undisturbed only 0/8")


# -- on disk ---------------------------------------------------------------------------------


def test_the_result_is_read_back(trials, outcomes, policy, tmp_path):
    outcomes.update({LIGHT: [1, 0] * 4})
    found = run(trials, [LIGHT], policy)
    assert read_stress(tmp_path) == found
    data = json.loads((tmp_path / "stress.json").read_text())
    assert data["policy"] == IDENTITY and data["rows"][1]["realism"] == LIGHT
    (tmp_path / "stress.json").write_text('{"rows": 3}')
    with pytest.raises(DatasetError, match="not the result of a stress"):
        read_stress(tmp_path)


def test_finished_rows_are_counted_and_others_recorded(trials, outcomes, policy):
    outcomes.update({LIGHT: [1, 0] * 4, LATE: [0] * 8})
    first = run(trials, [LIGHT], policy)
    assert outcomes["recorded"] == ["off", LIGHT]
    second = run(trials, [LATE, LIGHT], policy)
    assert outcomes["recorded"] == ["off", LIGHT, LATE]
    assert [row.realism for row in second.rows] == ["off", LATE, LIGHT]
    assert second.rows[2] == first.rows[1]
    assert run(trials, [LATE, LIGHT], policy) == second
    assert len(outcomes["recorded"]) == 3


def test_a_row_that_was_cut_short_is_recorded_anew(trials, outcomes, policy):
    rows = disturbances([LIGHT], "off")
    write(trials, rows[1], [0, 0, 0])
    (trials.row_folder(rows[1]) / "episode_000003.h5.partial").write_text("half")
    (trials.row_folder(rows[1]) / "notes.txt").write_text("mine")
    outcomes.update({LIGHT: [1] * 8})
    assert run(trials, [LIGHT], policy).rows[1].k == 8
    names = sorted(path.name for path in trials.row_folder(rows[1]).iterdir())
    assert len(names) == 9 and names[8] == "notes.txt"


def test_every_finished_row_is_written_before_the_next(trials, outcomes, policy, tmp_path):
    outcomes.update({LIGHT: [1] * 8, LATE: Lost("the process died (SIGKILL)")})
    rows = disturbances([LIGHT, LATE], "off")
    written = []
    with pytest.raises(RobotError, match=f"{LATE}: its trials failed .the process died"):
        for _ in stress.run_stress(trials, rows, policy, 1):
            written.append([row.realism for row in read_stress(tmp_path).rows])
    assert written == [["off"], ["off", LIGHT]]


@pytest.mark.parametrize(
    "change",
    [
        {"policy": {**IDENTITY, "sha256": "b" * 64}},
        {"policy": {**IDENTITY, "action_choice": "sample"}},
        {"labels": [1] * 9},
    ],
    ids=["policy", "choice", "seeds"],
)
def test_trials_of_something_else_are_never_counted_nor_removed(trials, policy, outcomes, change):
    rows = disturbances([LIGHT], "off")
    write(trials, rows[1], **{"labels": [1] * 8, **change})
    with pytest.raises(ConfigError, match="another policy or other settings.*another --out"):
        run(trials, [LIGHT], policy)
    assert len(list(trials.row_folder(rows[1]).glob("*.h5"))) >= 8
    assert outcomes["recorded"] == []
