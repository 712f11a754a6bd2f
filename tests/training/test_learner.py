"""BRAC's behaviour policy from a checkpoint, and what is done on a device that is not here."""

from __future__ import annotations

import contextlib
import dataclasses
from types import SimpleNamespace

import pytest
import torch

from ofrl_robot.data.replay.array_file import ArrayFile
from ofrl_robot.errors import CheckpointError, ConfigError, SpecMismatchError
from ofrl_robot.policy.checkpoint import ACTOR, load_checkpoint, part, save_checkpoint
from ofrl_robot.training import learner as learning
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


# -- devices that are not here ------------------------------------------------------------------

CUDA = torch.device("cuda")


@pytest.mark.parametrize(("generation", "native"), [(7, False), (8, True), (9, True)])
def test_bfloat16_that_a_card_only_emulates_does_not_count(generation, native, monkeypatch):
    properties = SimpleNamespace(major=generation)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert learning.has_bf16(CUDA) == native
    assert learning.uses_bf16("auto", CUDA) == native
    assert not learning.uses_bf16("fp32", CUDA)
    if native:
        assert learning.uses_bf16("bf16", CUDA)
    else:
        with pytest.raises(ConfigError, match="bf16, but cuda has no.*use --precision auto"):
            learning.uses_bf16("bf16", CUDA)


def test_a_precision_that_is_not_there_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(learning, "has_bf16", lambda device: False)
    with pytest.raises(ConfigError, match="precision bf16, but cpu has no"):
        Learner(config(tmp_path / "nowhere", precision="bf16"))


@pytest.mark.parametrize(("precision", "tf32"), [("auto", True), ("bf16", True), ("fp32", False)])
def test_a_card_multiplies_with_tf32_unless_float32_is_asked_for(precision, tf32, monkeypatch):
    cudnn, matmul = SimpleNamespace(benchmark=None), SimpleNamespace(allow_tf32=None)
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    monkeypatch.setattr(torch.backends.cuda, "matmul", matmul)
    learning.set_up_cuda(precision, torch.device("cpu"))
    assert cudnn.benchmark is None and matmul.allow_tf32 is None
    learning.set_up_cuda(precision, CUDA)
    assert cudnn.benchmark and cudnn.allow_tf32 is tf32 and matmul.allow_tf32 is tf32


def test_probing_saves_the_generator_of_the_training_device_only(make_dataset, monkeypatch):
    """By default torch saves those of all cards, and wakes each of them for it."""
    asked = []

    @contextlib.contextmanager
    def fork_rng(devices):
        asked.append(list(devices))
        yield

    learner = Learner(config(make_dataset(), "bc"))
    monkeypatch.setattr(torch.random, "fork_rng", fork_rng)
    learner.measure()
    on_card = SimpleNamespace(device=CUDA, probe=lambda batch: {"data_q": 0.0})
    learner._probe.measure(on_card)
    assert asked == [[], [CUDA]]


class Streaming:
    """Stands for the step of a GPU; notes what it is given."""

    def __init__(self, streams):
        self.streams, self.draws = streams, []

    def __call__(self, draws):
        self.draws.append([list(each) for each in draws])
        return {}


@pytest.mark.parametrize("streams", [True, False])
def test_frames_are_fetched_from_disk_only_if_they_are_read_from_there(
    make_dataset, monkeypatch, streams
):
    fetched = []
    learner = Learner(config(make_dataset(), "bc"))
    monkeypatch.setattr(ArrayFile, "prefetch", lambda self, first, second: fetched.append(first))
    learner._graphed = Streaming(streams)
    for _ in range(2):
        learner.update()
    assert len(fetched) == (2 if streams else 0)
    (index,) = learner.sampler.upcoming
    if streams:  # what the step after the last will read
        assert list(fetched[-1]) == list(learner.data.stores[0].locate(index)[0])
    learner.update()
    assert learner._graphed.draws[-1] == [list(index)]
