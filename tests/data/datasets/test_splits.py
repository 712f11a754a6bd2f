"""Splits: stratified, repeatable, never replaced by accident."""

import json

import pytest

from ofrl_robot.cli import main
from ofrl_robot.data.datasets.dataset import Dataset, open_dataset
from ofrl_robot.data.datasets.splits import SPLITS, divide, read_splits, select, split
from ofrl_robot.data.episodes.schema import FAILURE, SUCCESS, UNKNOWN
from ofrl_robot.errors import ConfigError, DatasetError


def labelled(tmp_path, make, counts):
    """A dataset that holds ``counts`` {label: episodes}, without files."""
    metas = [make.meta(success=label) for label, count in counts.items() for _ in range(count)]
    paths = [tmp_path / f"episode_{k:06d}.h5" for k in range(len(metas))]
    return Dataset(tmp_path, paths, metas, [1] * len(metas))


@pytest.mark.parametrize("valid", [0.1, 0.25, 0.9])
def test_every_label_has_its_share(tmp_path, make, valid):
    counts = {SUCCESS: 40, FAILURE: 20, UNKNOWN: 10}
    dataset = labelled(tmp_path, make, counts)
    parts = divide(dataset, valid, seed=0)
    every = [path.name for path in dataset.paths]
    assert sorted(parts["train"] + parts["valid"]) == every
    label = {path.name: meta.success for path, meta in zip(dataset.paths, dataset.metas)}
    for which, count in counts.items():
        assert abs(sum(label[n] == which for n in parts["valid"]) - valid * count) <= 0.5


def test_one_of_each_label_stays_in_train(tmp_path, make):
    dataset = labelled(tmp_path, make, {SUCCESS: 1, FAILURE: 2})
    assert len(divide(dataset, 0.9, seed=0)["valid"]) == 1
    assert "episode_000000.h5" in divide(dataset, 0.9, seed=0)["train"]


def test_the_seed_decides(tmp_path, make):
    dataset = labelled(tmp_path, make, {SUCCESS: 30, FAILURE: 30})
    assert divide(dataset, 0.2, 0) == divide(dataset, 0.2, 0)
    assert divide(dataset, 0.2, 0) != divide(dataset, 0.2, 1)
    # the same on any computer: these names were drawn once and for all
    small = labelled(tmp_path, make, {SUCCESS: 10})
    assert divide(small, 0.2, 0)["valid"] == ["episode_000006.h5", "episode_000007.h5"]


@pytest.mark.slow
def test_written_for_training_and_kept(tmp_path, make, capsys):
    for seed in range(10):
        make.episode(tmp_path, steps=2, seed=seed, success=seed % 2)
    assert main(["data", "split", str(tmp_path), "--valid", "0.2", "--seed", "5"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train: 8 episodes (4 success, 4 failure, 0 unknown)",
        "valid: 2 episodes (1 success, 1 failure, 0 unknown)",
    ]
    content = (tmp_path / SPLITS).read_bytes()
    assert json.loads(content.decode())["seed"] == 5
    assert set(read_splits(tmp_path)) == {"train", "valid"}
    dataset = open_dataset(tmp_path)
    parts = select(dataset, split="train"), select(dataset, split="valid")
    assert sorted(sum(parts, [])) == list(range(10)) and len(parts[1]) == 2
    assert main(["data", "split", str(tmp_path)]) == 2
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / SPLITS).read_bytes() == content
    split(tmp_path, valid=0.4, force=True)
    assert len(read_splits(tmp_path)["valid"]) == 4


def test_a_fraction_that_holds_nothing_out_is_refused(tmp_path, make):
    make.episode(tmp_path)
    with pytest.raises(ConfigError, match="0.1 of 1 episodes rounds to 0"):
        split(tmp_path)
    for valid in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="not in"):
            split(tmp_path, valid)
    assert not (tmp_path / SPLITS).exists()
    with pytest.raises(DatasetError, match="no such dataset folder"):
        split(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_negative_seed_is_refused(tmp_path, make, capsys):
    for seed in range(4):
        make.episode(tmp_path, seed=seed)
    assert main(["data", "split", str(tmp_path), "--valid", "0.5", "--seed", "-1"]) == 2
    assert "seed -1 is below 0" in capsys.readouterr().err
    assert not (tmp_path / SPLITS).exists()


@pytest.mark.parametrize(
    "content, words",
    [
        ("[" * 200_000, "splits.json: is not valid JSON"),
        ("3", "not lists of episode names"),
        ('{"train": [3]}', "not lists of episode names"),
        ('{"train": ', "splits.json: is not valid JSON"),
    ],
    ids=["deep", "number", "numbers", "cut off"],
)
def test_a_damaged_split_is_one_line(tmp_path, make, capsys, content, words):
    make.episode(tmp_path)
    (tmp_path / SPLITS).write_text(content)
    with pytest.raises(DatasetError, match=words):
        read_splits(tmp_path)
    assert main(["data", "delete", str(tmp_path), "0", "--yes"]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1
    assert (tmp_path / "episode_000000.h5").exists()
