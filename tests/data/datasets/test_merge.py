"""Merged datasets: complete, traceable, sources untouched."""

import json
import os
import shutil

import numpy as np
import pytest

from ofrl_robot.cli import main
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.datasets.edit import relabel
from ofrl_robot.data.datasets.merge import MERGED, find_duplicates, merge
from ofrl_robot.data.datasets.splits import split
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.schema import SUCCESS, EpisodeMeta
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.data.verify.dataset_check import verify_dataset
from ofrl_robot.data.verify.thresholds import QualityLimits
from ofrl_robot.errors import DatasetError, OutputError, SpecMismatchError
from ofrl_robot.specs import ActionSpec


@pytest.fixture
def two(tmp_path, make):
    """Two datasets of 2 and 3 episodes."""
    for folder, seeds in (("a", (0, 1)), ("b", (2, 3, 4))):
        for seed in seeds:
            make.episode(tmp_path / folder, seed=seed)
    return tmp_path / "a", tmp_path / "b"


@pytest.mark.slow
def test_all_episodes_in_order_and_where_they_come_from(two, tmp_path, state_of, capsys):
    split(two[0], valid=0.5)
    before = [state_of(folder) for folder in two]
    out = tmp_path / "out"
    assert main(["data", "merge", *map(str, two), str(out)]) == 0
    printed = capsys.readouterr().out
    assert "5 episodes, 5 of them hard links" in printed
    assert "splits.json: not taken over" in printed
    sources = [path for folder in two for path in open_dataset(folder).paths]
    merged = open_dataset(out).paths
    assert [p.name for p in merged] == [f"episode_{k:06d}.h5" for k in range(5)]
    assert [p.read_bytes() for p in merged] == [p.read_bytes() for p in sources]
    assert json.loads((out / MERGED).read_text()) == {
        new.name: str(old.resolve()) for new, old in zip(merged, sources)
    }
    assert [state_of(folder) for folder in two] == before
    assert verify_dataset(out, QualityLimits()).findings == []


def test_an_edit_of_the_one_leaves_the_other(two, tmp_path):
    merge(two, tmp_path / "out")
    content = (two[0] / "episode_000000.h5").read_bytes()
    relabel(tmp_path / "out" / "episode_000000.h5", "test", 0, np.zeros(5))
    assert (two[0] / "episode_000000.h5").read_bytes() == content


@pytest.mark.slow
def test_copies_where_there_are_no_hard_links(two, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    merged = merge(two, tmp_path / "out")
    assert (merged.episodes, merged.linked) == (5, 0)
    assert verify_dataset(tmp_path / "out", QualityLimits()).findings == []


def test_a_recording_that_is_there_twice_is_refused_by_name(two, tmp_path, make):
    shutil.copy(str(two[0] / "episode_000001.h5"), str(two[1] / "episode_000009.h5"))
    relabel(two[1] / "episode_000009.h5", "test", 0, np.zeros(5))  # the recording is the same
    with pytest.raises(DatasetError) as error:
        merge(two, tmp_path / "out")
    assert error.value.where == str(two[1] / "episode_000009.h5")
    assert str(two[0] / "episode_000001.h5") in error.value.what
    assert not (tmp_path / "out").exists()
    merged = merge(two, tmp_path / "out", allow_duplicates=True)
    assert merged.episodes == 6 and len(merged.duplicates) == 1


def test_other_frames_are_another_recording(tmp_path, make):
    paths = []
    for shift in (0, 1):
        ticks, applied = make.ticks(3)
        ticks[-1].images["image"][:] ^= shift
        (tmp_path / str(shift)).mkdir()
        writer = EpisodeWriter(tmp_path / str(shift), make.meta(seed=0))
        make.record(writer, ticks, applied)
        paths.append(writer.finish(SUCCESS, "test"))
    assert find_duplicates(paths) == []
    assert find_duplicates([*paths, paths[0]]) == [(paths[0], paths[0])]


def test_other_specs_are_refused_by_episode_and_field(two, tmp_path, make):
    make.episode(tmp_path / "large", size=8)
    with pytest.raises(SpecMismatchError, match="large/episode_000000.h5 .*cameras"):
        merge([two[0], tmp_path / "large"], tmp_path / "out")
    base = make.meta()
    spec = ActionSpec(**{**vars(base.action_spec), "gripper_threshold": 0.1})
    meta = EpisodeMeta("sim", "Task-v0", spec, base.observation_spec, 5.0)
    make.episode(tmp_path / "other", meta=meta)
    with pytest.raises(SpecMismatchError, match="other/episode_000000.h5 .*gripper_threshold"):
        merge([*two, tmp_path / "other"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_into_a_new_folder(two, tmp_path, state_of, capsys):
    before = state_of(tmp_path)
    with pytest.raises(OutputError, match="is not empty"):
        merge([two[0], two[1]], two[0])
    assert main(["data", "merge", *map(str, two)]) == 2
    assert "two datasets or more and a new folder" in capsys.readouterr().err
    with pytest.raises(DatasetError, match="no such dataset folder"):
        merge([two[0], tmp_path / "none"], tmp_path / "out")
    assert state_of(tmp_path) == before
    assert len(read_episode(two[0] / "episode_000000.h5")) == 5


def test_datasets_of_different_tasks_are_merged_only_when_that_is_asked_for(two, tmp_path, make):
    other = make.meta(seed=9)
    other.task = "Drawer-v0"
    make.episode(tmp_path / "drawer", meta=other)
    sources, out = [two[0], tmp_path / "drawer"], tmp_path / "out"
    with pytest.raises(DatasetError, match="shows task 'Drawer-v0' on robot 'sim'.*--mixed-tasks"):
        merge(sources, out)
    assert not out.exists()
    words = ["data", "merge", *map(str, sources), str(out), "--mixed-tasks"]
    assert main(words) == 0
    assert {meta.task for meta in open_dataset(out).metas} == {"Task-v0", "Drawer-v0"}
    assert merge([out, two[1]], tmp_path / "more").episodes == 6  # its task is in the first
