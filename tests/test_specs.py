"""Specs: stored and read back unchanged, refused with both sides named, the image pipeline."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from ofrl_robot.errors import SpecMismatchError
from ofrl_robot.images import prepare
from ofrl_robot.specs import (
    WIDOWX_ACTION,
    ActionSpec,
    CameraSpec,
    ObservationSpec,
    differences,
    require_same,
    widowx_observation,
)

CROPPED = ObservationSpec(
    (CameraSpec("wrist", 48, 64, crop=(10, 20, 100, 200)), CameraSpec("front", 24, 24)),
    ("a",),
    ("m",),
    "base",
)


@pytest.mark.parametrize("spec", [WIDOWX_ACTION, widowx_observation(), CROPPED])
def test_json_round_trip_gives_an_equal_spec(spec):
    back = type(spec).from_dict(json.loads(json.dumps(spec.to_dict())))
    assert back == spec and hash(back) == hash(spec)  # tuples again, not lists
    assert differences(back, spec) == []
    require_same(back, spec, "this", "that", "nothing to do")


@pytest.mark.parametrize(
    ("left", "change", "field"),
    [
        (WIDOWX_ACTION, {"scale": (0.1,) * 8}, "scale"),
        (WIDOWX_ACTION, {"names": WIDOWX_ACTION.names[::-1]}, "names"),
        (WIDOWX_ACTION, {"gripper_threshold": 0.4}, "gripper_threshold"),
        (WIDOWX_ACTION, {"frame": "tool"}, "frame"),
        (CROPPED, {"cameras": (CameraSpec("wrist", 48, 64),) + CROPPED.cameras[1:]}, "cameras"),
        (CROPPED, {"state_units": ("mm",)}, "state_units"),
    ],
)
def test_a_mismatch_names_field_and_both_sides(left, change, field):
    right = dataclasses.replace(left, **change)
    with pytest.raises(SpecMismatchError) as caught:
        require_same(left, right, "run/step_5", "robot arm1", "retrain")
    text = str(caught.value)
    for part in ("run/step_5", "robot arm1", "retrain", field, str(left.to_dict()[field]),
                 str(right.to_dict()[field])):  # fmt: skip
        assert part in text
    assert "\n" not in text
    assert [line.split(":")[0] for line in differences(left, right)] == [field]


def test_index_of_an_entry_that_is_not_there_is_none():
    spec = ActionSpec(("x", "gripper"), ("m", "1"), (0.1, 1.0), "base")
    assert spec.size == 2


def test_pipeline_crops_before_it_resizes():
    raw = np.zeros((120, 240, 3), np.uint8)
    raw[10:110, 20:220] = 200  # just the crop is bright: no dark pixel may leak in
    out = prepare(raw, CROPPED.cameras[0])
    assert out.shape == CROPPED.cameras[0].shape and out.dtype == np.uint8
    assert (out == 200).all()


def test_resize_averages_areas():
    raw = np.zeros((8, 8, 3), np.uint8)
    raw[::2] = 100  # nearest neighbour would give stripes
    assert (prepare(raw, CameraSpec("c", 4, 4)) == 50).all()


@pytest.mark.parametrize("crop", [None, (2, 3, 4, 5)])
def test_no_copy_when_there_is_nothing_to_resize(crop):
    raw = np.arange(8 * 9 * 3, dtype=np.uint8).reshape(8, 9, 3)
    height, width = (8, 9) if crop is None else crop[2:]
    out = prepare(raw, CameraSpec("c", height, width, crop))
    assert np.shares_memory(out, raw)
    assert np.array_equal(out, raw if crop is None else raw[2:6, 3:8])
