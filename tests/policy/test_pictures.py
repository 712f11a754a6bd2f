"""The summary of the training pictures: its distances, its file form, and a damaged one."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofrl_robot.errors import CheckpointError
from ofrl_robot.policy.checkpoint import read_header
from ofrl_robot.policy.light import QUANTITIES
from ofrl_robot.policy.picture_check import ALARM, PictureCheck
from ofrl_robot.policy.pictures import (
    FEATURES,
    RIDGE,
    Distance,
    PictureSummary,
    Stage,
    project,
)
from ofrl_robot.policy.policy import Policy

SIZE = 8  # features of the policies in these tests: their last hidden layer


def stage(frames=1, size=SIZE, camera="image", **changes):
    rng = np.random.default_rng(frames)
    x = rng.normal(size=(200, size))
    light = {camera: np.array([np.full(len(QUANTITIES), v) for v in (-50.0, 120.0)])}
    values = {"mean": x.mean(0), "covariance": np.cov(x.T), "limit": 1.5, "light": light}
    return Stage(frames, **{**values, **changes})


def summary(steps=(0, 2, 4, 6), frames=(1, 2, 4), **changes):
    return PictureSummary(steps, tuple(stage(k, **changes) for k in frames), episodes=200)


# -- distances --------------------------------------------------------------------------------


def test_the_distance_is_mahalanobis():
    rng = np.random.default_rng(0)
    covariance = np.cov(rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6)), rowvar=False)
    mean, x = rng.normal(size=6), rng.normal(size=(10, 6))
    ridged = covariance + RIDGE * np.trace(covariance) / 6 * np.eye(6)
    square = np.einsum("ni,ij,nj->n", x - mean, np.linalg.inv(ridged), x - mean)
    assert Distance(mean, covariance)(x) == pytest.approx(np.sqrt(square / 6))


def test_a_direction_without_variance_is_finite():
    assert np.isfinite(Distance(np.zeros(3), np.zeros((3, 3)))(np.zeros(3)))
    assert Distance(np.zeros(3), np.diag([1.0, 1.0, 0.0]))(np.array([0.0, 0.0, 1.0])) > 2


def test_the_projection_is_the_same_everywhere():
    few = np.arange(5.0)
    assert np.array_equal(project(few), few)
    many = project(np.arange(100.0) / 100)
    assert many.shape == (FEATURES,)
    # RandomState(0).standard_normal: numpy promises that these numbers never change
    draws = np.random.RandomState(0).standard_normal((100, FEATURES))
    assert draws[0, 0] == pytest.approx(1.764052345967664)
    assert many == pytest.approx(np.arange(100.0) / 100 @ draws / 10, abs=1e-5)


# -- file form --------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_the_file_form_keeps_the_scores(size, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, size)) * 10.0 ** rng.integers(-4, 4)
    before = summary(size=size, mean=x.mean(0), covariance=np.atleast_2d(np.cov(x.T)))
    after = PictureSummary.from_dict(json.loads(json.dumps(before.to_dict())))
    assert (after.steps, after.episodes) == (before.steps, before.episodes)
    for a, b in zip(after.stages, before.stages):
        assert [a.score(row) for row in x] == pytest.approx([b.score(row) for row in x], rel=1e-3)
        assert np.allclose(a.light["image"], b.light["image"])


def test_a_summary_is_small():
    assert len(json.dumps(summary(frames=(1, 2, 4), size=FEATURES).to_dict())) < 30_000


def damaged(**changes):
    data = copy.deepcopy(summary().to_dict())
    for path, value in changes.items():
        *keys, last = path.split("__")
        place = data
        for key in keys:
            place = place[int(key) if key.isdigit() else key]
        place[last] = value
    return data


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": []}, {"steps": [1, 2]}, {"steps": [0, 4, 2, 6]}, {"steps": [0, 0.5, 2, 3]},
        {"steps": list(range(1000))}, {"steps": None}, {"episodes": "many"},
        {"stages": []}, {"stages__0__frames": 3}, {"stages__0__frames": 1.0},
        {"stages__2__frames": 5}, {"stages__0__mean": []}, {"stages__0__mean": [0.0] * 9},
        {"stages__0__mean": [float("nan")] * SIZE}, {"stages__0__mean": "abc"},
        {"stages__0__covariance": [1.0]}, {"stages__0__limit": 0.0}, {"stages__0__limit": "x"},
        {"stages__0__light": {"image": [[0.0], [1.0]]}}, {"stages__0__light": []},
        {"stages__0__light": {"wrist": summary().to_dict()["stages"][0]["light"]["image"]}},
    ],
)  # fmt: skip
def test_a_damaged_summary_is_refused_with_the_file(save, changes):
    path = save(pictures=damaged(**changes))
    with pytest.raises(CheckpointError, match=path.name):
        read_header(path)


def test_a_checkpoint_keeps_its_summary_and_an_old_one_has_none(save, header):
    found = read_header(save(pictures=summary().to_dict())).picture_summary()
    assert found is not None and found.steps == (0, 2, 4, 6)
    assert header.picture_summary() is None
    old = json.loads(header.to_json())
    del old["pictures"], old["environment"]
    assert type(header).from_json(json.dumps(old), "f").picture_summary() is None


# -- the running comparison -------------------------------------------------------------------

GREY = np.full((24, 24, 3), 100, np.uint8)


def run(check, features, image=GREY, first=0):
    for step in range(first, first + 12):
        check.take(step, features, {"image": image})
        yield check.report


def test_the_data_itself_is_inside_and_far_away_is_outside():
    check = PictureCheck(summary())
    *_, inside = run(check, np.zeros(SIZE))
    assert inside.score < 0.5 and not inside.outside and inside.frames == 4
    check.reset()
    assert check.report is None
    *_, outside = run(check, np.full(SIZE, 9.0))
    assert outside.outside and outside.score > ALARM
    assert outside.score == max(outside.first, outside.average)


def test_only_frames_that_are_due_count():
    check = PictureCheck(summary())
    reports = list(run(check, np.zeros(SIZE)))
    assert [r.frames for r in reports] == [1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4]
    assert not check.due(100)


def test_a_late_first_frame_is_taken():
    check = PictureCheck(summary())
    reports = list(run(check, np.zeros(SIZE), first=1))
    assert reports[0].frames == 1 and check.failure == ""


def test_the_first_frame_is_not_forgotten():
    check = PictureCheck(summary())
    check.take(0, np.full(SIZE, 20.0), {"image": GREY})
    first = check.report
    for step in (2, 4, 6):
        check.take(step, np.full(SIZE, -20.0 / 3), {"image": GREY})
    assert check.report.average < first.score
    assert (check.report.score, check.report.words) == (first.score, first.words)


def test_the_camera_and_the_light_are_named():
    check = PictureCheck(summary())
    *_, report = run(check, np.zeros(SIZE), np.full((24, 24, 3), 150, np.uint8))
    assert report.words == "camera image: picture 30 brighter than 99 % of the data"
    check.reset()
    *_, report = run(check, np.zeros(SIZE))
    assert "as in the data" in report.words
    assert "99 % of the data are below 1" in report.line() and report.words in report.line()


def test_an_arm_that_goes_elsewhere_is_not_the_cameras_fault():
    """Measured: a checkpoint that hovers (0 of 50) had 9 alarms before an unchanged camera."""
    check = PictureCheck(summary())
    check.take(0, np.zeros(SIZE), {"image": GREY})
    for step in (2, 4, 6):
        check.take(step, np.full(SIZE, 9.0), {"image": GREY})
    report = check.report
    assert report.first < 1 < ALARM < report.score and not report.outside
    assert "goes elsewhere" in report.words


def test_a_lamp_that_goes_out_is_seen():
    check = PictureCheck(summary())
    check.take(0, np.zeros(SIZE), {"image": GREY})
    for step in (2, 4, 6):
        check.take(step, np.full(SIZE, 9.0), {"image": np.full_like(GREY, 250)})
    assert check.report.outside and check.report.words.startswith("camera image: picture 9")


@pytest.mark.parametrize(
    "features, images",
    [(np.zeros(3), {"image": GREY}), (np.zeros(SIZE), {}), (None, {"image": GREY})],
)
def test_whatever_fails_is_said_and_never_raised(features, images):
    check = PictureCheck(summary())
    check.take(0, features, images)
    assert check.failure and check.report is None and not check.due(2)


# -- in the policy ----------------------------------------------------------------------------


def tick_of(tick, step, value=100):
    import dataclasses

    return dataclasses.replace(tick, step=step, images={"image": np.full_like(GREY, value)})


@pytest.fixture
def tick():
    from ofrl_robot.control.signals import Tick

    return Tick(1, 0, {"image": GREY}, np.zeros(10))


def test_a_policy_compares_what_its_actor_computed(save, tick):
    plain, policy = Policy(save()), Policy(save("b.safetensors", pictures=summary().to_dict()))
    assert plain.pictures is None and plain.remarks() == {} and policy.pictures is None
    for each in (plain, policy):
        each.warm_up()
        each.reset(0)
    for step in range(3):
        now = tick_of(tick, step)
        assert np.array_equal(plain.act(now), policy.act(now)), "it must not change the action"
    assert policy.pictures.frames == 2 and not policy.picture_failure
    assert policy.remarks()["score"] == pytest.approx(policy.pictures.score, abs=1e-3)
    policy.reset(1)
    assert policy.pictures is None


def test_a_failing_comparison_does_not_end_the_policy(save, tick):
    wrong = summary(size=SIZE + 1).to_dict()  # of another network
    policy = Policy(save(pictures=wrong))
    assert np.isfinite(policy.act(tick)).all() and policy.picture_failure


@pytest.mark.parametrize(
    "data, environment, task, words",
    [
        ({"backend": "embedded", "realism": "off"}, {"sim_backend": "embedded", "realism": "off"},
         "", ""),
        ({"backend": "embedded", "realism": "off"}, {"sim_backend": "roboverse"}, "",
         "trained on embedded; this is roboverse"),
        ({"backend": "embedded", "realism": "off or mild"},
         {"sim_backend": "embedded", "realism": "mild"}, "", ""),
        ({"backend": "embedded", "realism": "off"},
         {"sim_backend": "embedded", "realism": "mild,light_gradient=30"}, "",
         "trained on realism off; this is realism mild,light_gradient=30"),
        ({"backend": "hardware", "realism": ""}, {"sim_backend": "embedded"}, "",
         "trained on hardware, no realism; this is embedded, realism off"),
        ({}, {"sim_backend": "roboverse"}, "", ""),
        ({}, {"exposure": 3}, "Other-v0",
         "trained on Widow250SingleObjGrasp-v0; this is Other-v0"),
    ],
)  # fmt: skip
def test_another_place_is_told(save, data, environment, task, words):
    path = save(environment=data, pictures=summary().to_dict())
    policy = Policy(path)
    notes = policy.notes(environment, task or policy.header.task)
    assert notes == ([words] if words else [])


def test_a_checkpoint_without_a_summary_says_so_in_one_line(save):
    policy = Policy(save())
    (note,) = policy.notes({}, policy.header.task)
    assert "no summary of its training pictures" in note and "\n" not in note
