"""Settings of a run: bounds, names, what counts as the same."""

from __future__ import annotations

import pytest

from ofrl_robot.errors import ConfigError
from ofrl_robot.training.config import TrainConfig
from tests.training.small_run import config


@pytest.mark.parametrize(
    ("name", "value", "most"),
    [
        ("threads", 100000, 1024),  # torch crashed: exit code 139
        ("seed", 2**70, 2**63 - 1),  # torch raised a traceback
        ("steps", 99999999999999999999999, 10**9),
        ("batch_size", 10**12, 10**9),
    ],
)
def test_a_number_above_its_bound_is_refused_by_name(name, value, most):
    with pytest.raises(ConfigError, match=f"^{name} {value} is above {most}; give . to {most}$"):
        TrainConfig(**{name: value})
    TrainConfig(**{name: most})


@pytest.mark.parametrize(
    ("text", "names"),
    [("", ()), ("image", ("image",)), ("image, wrist,state", ("image", "wrist", "state"))],
)
def test_observations_are_named_with_commas(text, names):
    assert TrainConfig(observe=text).observed == names


def test_paths_of_data_are_stored_absolute(make_dataset, monkeypatch):
    data = make_dataset()
    monkeypatch.chdir(data.parent)
    stored = config("./data", prior=data.parent / "x" / ".." / "prior").to_dict()
    assert (stored["dataset"], stored["prior"]) == (str(data), str(data.parent / "prior"))
