"""Training on several cameras and the state."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch

from ofrl_robot.control.signals import HUMAN, AppliedAction, Tick
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.schema import EpisodeMeta
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.errors import ConfigError, DatasetError
from ofrl_robot.policy.checkpoint import load_checkpoint
from ofrl_robot.policy.policy import Policy
from ofrl_robot.specs import WIDOWX_ACTION, CameraSpec, ObservationSpec
from ofrl_robot.training import run_folder
from ofrl_robot.training.learner import Learner
from ofrl_robot.training.loop import train
from tests.training.small_run import config, stopped

CAMERAS = (CameraSpec("image", 24, 24), CameraSpec("wrist", 24, 24))
SPEC = ObservationSpec(CAMERAS, ("a", "still", "c"), ("m", "m", "1"), "base")


@pytest.fixture
def data(tmp_path):
    """Six episodes of two cameras and a state of which one entry never moves."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for _ in range(6):
        writer = EpisodeWriter(folder, EpisodeMeta("arm", "task", WIDOWX_ACTION, SPEC, 5.0))
        for step in range(6):
            images = {c.name: rng.integers(0, 256, c.shape, np.uint8) for c in CAMERAS}
            state = np.array([1000.0 + rng.normal(), 0.5, rng.normal()])
            last = step == 5
            writer.observe(Tick(step + 1, step, images, state, float(last), last))
            if not last:
                action = rng.uniform(-1, 1, 8)
                writer.act(AppliedAction(step + 1, action, action, HUMAN))
        writer.finish(1, "test")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["bc", "cql", "brac"])
@pytest.mark.parametrize("observe", ["state", "wrist,state,image"])
def test_a_run_sees_what_it_is_told_and_resumes_to_the_bit(data, tmp_path, algo, observe):
    chosen = config(data, algo, observe=observe)
    broken = train(chosen, stopped(chosen, tmp_path / "broken"), resume=True)
    whole = train(chosen, tmp_path / "whole")
    for step in (3, 7):
        path = run_folder.checkpoint_path(whole, step)
        assert path.read_bytes() == run_folder.checkpoint_path(broken, step).read_bytes()
    header, _ = load_checkpoint(path)
    assert header.observe == tuple(observe.split(","))
    Policy(path).warm_up()
    assert f"observe: {observe}\n" in (whole / "config.yaml").read_text()


def test_the_state_is_normalised_by_the_training_episodes(data):
    names = [path.name for path in open_dataset(data).paths]
    splits = {"train": names[:4], "valid": names[4:]}
    (data / "splits.json").write_text(json.dumps(splits))
    learner = Learner(config(data, "cql", observe="state", split="train"))
    states = np.concatenate([read_episode(p).state for p in open_dataset(data).paths[:4]])
    mean, std = learner.data.state_stats
    np.testing.assert_allclose(mean, states.mean(0), rtol=1e-5)
    np.testing.assert_allclose(std[[0, 2]], states.std(0)[[0, 2]], rtol=1e-3)
    assert std[1] == np.float32(1e-3) and mean.dtype == std.dtype == np.float32
    stored = [v for v in learner.algorithm.state_dict().values() if v.shape == (3,)]
    assert any(torch.equal(v, torch.from_numpy(mean)) for v in stored)
    assert Learner(config(data, "cql", observe="image")).data.state_stats is None


def test_a_state_that_is_not_finite_is_refused_where_it_is_observed(data, tmp_path):
    with h5py.File(open_dataset(data).paths[2], "r+") as file:
        file["data/demo_0/obs/state"][1, 0] = np.nan
    with pytest.raises(DatasetError, match="state|finite"):
        train(config(data, "bc", observe="image,state"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_observations_are_another_run(data, tmp_path):
    folder = stopped(config(data, "bc"), tmp_path / "run")
    with pytest.raises(ConfigError, match="observe  != image,state"):
        train(config(data, "bc", observe="image,state"), folder, resume=True)
