"""BRAC's behaviour policy from a checkpoint that was trained before."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ofrl_robot.errors import CheckpointError, SpecMismatchError
from ofrl_robot.policy.checkpoint import ACTOR, load_checkpoint, part, save_checkpoint
from ofrl_robot.training import run_folder
from ofrl_robot.training.learner import Learner
from ofrl_robot.training.loop import train
from tests.training.small_run import HYPER, NETS, config


@pytest.fixture
def behavior(make_dataset, tmp_path):
    """A checkpoint of behavioural cloning, with networks unlike those of the run."""
    nets = dataclasses.replace(NETS, latent=4, hidden=(8, 8))
    folder = train(config(make_dataset(), "bc", nets=nets), tmp_path / "bc")
    return run_folder.checkpoint_path(folder, 7)


def brac(data, path):
    return config(data, "brac", dataclasses.replace(HYPER["brac"], behavior_path=path))


@pytest.mark.slow
def test_the_behaviour_policy_is_that_of_the_checkpoint(behavior, tmp_path):
    chosen = brac(tmp_path / "data", behavior)
    learner = Learner(chosen)
    weights = part(load_checkpoint(behavior)[1], ACTOR)
    for _ in range(3):
        learner.update()
    for name, weight in learner.algorithm.behavior.state_dict().items():
        assert torch.equal(weight, weights[name])
    folder = train(chosen, tmp_path / "run")
    assert run_folder.read_config(folder)["algo_config"]["behavior_path"] == str(behavior)


def test_a_run_folder_stands_for_its_selected_checkpoint(behavior, tmp_path):
    chosen = brac(tmp_path / "data", tmp_path / "bc")
    with pytest.raises(CheckpointError, match="run `ofrl diagnose"):
        Learner(chosen)
    (tmp_path / "bc" / "selected.json").write_text(f'{{"file": "checkpoints/{behavior.name}"}}')
    assert Learner(chosen).algorithm.behavior is not None


def spoil(path, change_header=None, change_weights=None):
    header, weights = load_checkpoint(path)
    if change_header:
        header = change_header(header)
    if change_weights:
        change_weights(weights)
    save_checkpoint(path, header, weights)


def test_what_cannot_be_its_behaviour_policy_is_refused(behavior, make_dataset, tmp_path):
    data = tmp_path / "data"
    with pytest.raises(SpecMismatchError, match="differ.*same specs"):
        Learner(brac(make_dataset("other", size=20), behavior))
    with pytest.raises(CheckpointError, match="no such run folder or checkpoint"):
        Learner(brac(data, tmp_path / "nowhere"))
    spoil(behavior, change_weights=lambda w: w.popitem())
    with pytest.raises(CheckpointError, match="weights do not fit"):
        Learner(brac(data, behavior))
    behavior.write_bytes(behavior.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="truncated"):
        Learner(brac(data, behavior))
    assert not (tmp_path / "run").exists()
