"""Finished episodes change as a whole or not at all, and stay episodes."""

import h5py
import numpy as np
import pytest

from ofrl_robot.cli import main
from ofrl_robot.control.signals import HOLD, AppliedAction, Tick
from ofrl_robot.data.datasets import trimming
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.datasets.edit import chosen, delete, relabel
from ofrl_robot.data.datasets.splits import read_splits, split
from ofrl_robot.data.datasets.trimming import Idle, trim
from ofrl_robot.data.episodes import numbering
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.schema import FAILURE, SUCCESS
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.data.verify.dataset_check import verify_dataset
from ofrl_robot.data.verify.thresholds import QualityLimits
from ofrl_robot.errors import ConfigError, DatasetError, OutputError

GROUP = "data/demo_0"
PERIOD = 200_000_000  # ns
STEPS, BUSY = 20, range(6, 12)  # the arm is moved in steps 6 to 11 of 0 to 19


def record_idle(folder, make, reward_at=None, jpeg=0, terminal=False, success=FAILURE):
    """An arm that waits, moves in the busy steps, and waits again until the time is up."""
    rng = np.random.default_rng(0)
    meta = make.meta()
    folder.mkdir(exist_ok=True)
    writer = EpisodeWriter(folder, meta, jpeg_quality=jpeg)
    state = np.zeros(10)
    for k in range(STEPS + 1):
        last = k == STEPS
        image = rng.integers(0, 256, (6, 6, 3), np.uint8)
        stamp = (k + 1) * PERIOD
        writer.observe(Tick(
            stamp, k, {"image": image}, state.copy(), reward=float(k - 1 == reward_at),
            terminated=last and terminal, truncated=last and not terminal,
        ))  # fmt: skip
        if last:
            break
        action = np.full(8, 0.5 if k in BUSY else 0.01)
        state[:3] += 0.01 if k in BUSY else 0.0001
        source = {"source": HOLD} if k == 7 else {"source": "policy"}
        writer.act(AppliedAction(stamp, action, action * 1.5, intervention=k == 8, **source))
    return writer.finish(success, "test")


def datasets_of(path):
    """{name: rows}, virtual ones included."""
    found = {}
    with h5py.File(str(path), "r") as file:
        file[GROUP].visititems(
            lambda n, x: found.update({n: x[:]}) if isinstance(x, h5py.Dataset) else None
        )
        return found, dict(file[GROUP].attrs)


def assert_clean(folder):
    # one step is held, which is a larger share of a shorter episode
    limits = QualityLimits(max_held_fraction=1.0)
    assert verify_dataset(folder, limits).findings == []


# -- trim ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["both", "start", "end"])
def test_trim_cuts_everything_alike(tmp_path, make, ends):
    path = record_idle(tmp_path, make, jpeg=90)
    with h5py.File(str(path), "r+") as file:
        rewards = file[f"{GROUP}/rewards"][:]
        file[f"{GROUP}/rewards_original"] = rewards
    before, attrs = datasets_of(path)
    cuts = trim(tmp_path, Idle(keep=2, start=ends != "end", end=ends != "start"), write=True)
    first, stop = (4 if ends != "end" else 0), (14 if ends != "start" else STEPS)
    assert [(c.first, c.stop) for c in cuts] == [(first, stop)]
    after, new_attrs = datasets_of(path)
    assert set(after) == set(before)
    assert {"source", "rewards_original", "obs_jpeg/image", "next_obs/image"} < set(after)
    for name, rows in before.items():
        per_observation = name.startswith(("obs/", "obs_jpeg/")) or name in (
            "timestamps/obs", "timestamps/state", "timestamps/image"
        )  # fmt: skip
        expected = rows[first : stop + per_observation].copy()
        if name in ("timeouts", "dones"):
            expected[-1] = True
        assert len(after[name]) == len(expected), name
        assert all(np.array_equal(a, b) for a, b in zip(after[name], expected)), name
    assert new_attrs["num_samples"] == stop - first
    assert list(new_attrs["trimmed"]) == [first, STEPS - stop]
    for name in set(attrs) - {"num_samples", "measured_rate_hz"}:
        assert new_attrs[name] == attrs[name], name
    assert_clean(tmp_path)
    assert trim(tmp_path, Idle(keep=2, start=ends != "end", end=ends != "start"), True) == []
    trim(tmp_path, Idle(keep=1), write=True)
    assert sum(datasets_of(path)[1]["trimmed"]) == STEPS - 8
    assert_clean(tmp_path)


@pytest.mark.slow
def test_a_step_with_a_reward_or_the_terminal_is_never_cut(tmp_path, make):
    record_idle(tmp_path / "early", make, reward_at=3, success=SUCCESS)
    record_idle(tmp_path / "late", make, reward_at=17, success=SUCCESS)
    record_idle(tmp_path / "terminal", make, terminal=True)
    relabelled = record_idle(tmp_path / "relabelled", make, reward_at=17)
    relabel(relabelled, "test", None, np.zeros(STEPS))
    spans = {
        folder: [(c.first, c.stop) for c in trim(tmp_path / folder, Idle(keep=0), True)]
        for folder in ("early", "late", "terminal", "relabelled")
    }
    assert spans["early"] == [(3, 12)]
    assert spans["late"] == spans["relabelled"] == [(6, 18)]
    assert spans["terminal"] == [(6, 20)]
    for folder in spans:
        assert_clean(tmp_path / folder)
    assert read_episode(relabelled).meta.success == FAILURE


def test_an_arm_that_moves_or_never_moves_is_left(tmp_path, make):
    record_idle(tmp_path, make)
    assert trim(tmp_path, Idle(action=0.005), write=False) == []
    assert trim(tmp_path, Idle(still=1e-4), write=False) == []
    (cut,) = trim(tmp_path, Idle(action=1.0, still=np.inf), write=True)
    assert cut.idle and not cut.removed and "idle from end to end" in cut.line()
    for bad in ({"action": 0.0}, {"still": np.nan}, {"keep": -1}):
        with pytest.raises(ConfigError):
            Idle(**bad)


def test_dry_run_is_the_default(tmp_path, make, capsys, state_of):
    record_idle(tmp_path, make)
    before = state_of(tmp_path)
    assert main(["data", "trim", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "20 steps,    4 off the start,    6 off the end,    10 left" in out
    assert "10 steps of 1 episodes" in out and "nothing was changed; --yes does it" in out
    assert main(["data", "delete", str(tmp_path), "0"]) == 0
    out = capsys.readouterr().out
    assert "episode_000000.h5 -> deleted/episode_000000.h5" in out and "nothing was changed" in out
    assert state_of(tmp_path) == before
    assert main(["data", "trim", str(tmp_path), "--start", "--yes"]) == 0
    assert open_dataset(tmp_path).lengths == [16]


def test_state_without_a_position_is_refused_by_name(tmp_path, make, monkeypatch):
    record_idle(tmp_path, make)
    monkeypatch.setattr(trimming, "POSITION", ("ee_x", "tip_y"))
    with pytest.raises(DatasetError, match="no tip_y; pass --still inf"):
        trim(tmp_path, Idle(), write=True)
    assert len(trim(tmp_path, Idle(still=np.inf), write=False)) == 1


# -- writing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("job", ["trim", "relabel"])
def test_a_failed_edit_leaves_the_episode_as_it_was(tmp_path, make, state_of, monkeypatch, job):
    path = record_idle(tmp_path, make)
    before = state_of(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(numbering.os, "pwrite", full)
    with pytest.raises(OutputError, match="No space left.*free space"):
        if job == "trim":
            trim(tmp_path, Idle(), write=True)
        else:
            relabel(path, "test", SUCCESS, None)
    assert state_of(tmp_path) == before


@pytest.mark.slow
def test_what_a_killed_edit_left_is_neither_counted_nor_in_the_way(tmp_path, make):
    path = record_idle(tmp_path, make)
    left = tmp_path / f".{path.name}.editing"
    left.write_bytes(b"half")
    assert len(open_dataset(tmp_path).paths) == 1
    trim(tmp_path, Idle(), write=True)
    assert not left.exists()
    assert_clean(tmp_path)


def test_no_edit_while_a_recorder_is_at_work(tmp_path, make):
    path = record_idle(tmp_path, make)
    content = path.read_bytes()
    with one_writer(tmp_path):
        for job in (
            lambda: trim(tmp_path, Idle(), write=True),
            lambda: delete(tmp_path, ["0"], purge=False, write=True),
            lambda: split(tmp_path),
        ):
            with pytest.raises(DatasetError, match="another recorder"):
                job()
    assert path.read_bytes() == content


# -- deletion --------------------------------------------------------------------------------


@pytest.mark.slow
def test_deleted_episodes_can_be_restored(tmp_path, make):
    for seed in range(6):
        make.episode(tmp_path, seed=seed)
    split(tmp_path, valid=0.5)
    whole = {p.name: p.read_bytes() for p in open_dataset(tmp_path).paths}
    lines = delete(tmp_path, ["0", "4-9", "episode_000002.h5"], purge=False, write=True)
    gone = [f"episode_00000{k}.h5" for k in (0, 2, 4, 5)]
    assert lines == [f"{name} -> deleted/{name}" for name in gone]
    left = {p.name for p in open_dataset(tmp_path).paths}
    assert left == set(whole) - set(gone)
    splits = read_splits(tmp_path)
    assert set(splits["train"]) | set(splits["valid"]) == left
    assert_clean(tmp_path)
    assert numbering.next_index(tmp_path) == 6  # so that a restored one collides with nothing
    for name in gone:
        (tmp_path / "deleted" / name).rename(tmp_path / name)
    assert {p.name: p.read_bytes() for p in open_dataset(tmp_path).paths} == whole


def test_purged_is_gone_and_damaged_ones_can_be_deleted(tmp_path, make):
    for seed in range(3):
        path, *_ = make.episode(tmp_path, seed=seed)
    path.write_bytes(b"damaged")
    assert delete(tmp_path, ["2"], purge=True, write=True) == ["episode_000002.h5 -> gone for good"]
    assert len(open_dataset(tmp_path).paths) == 2
    assert not (tmp_path / "deleted").exists()


@pytest.mark.parametrize(
    "words", [["0", "7"], ["1", "5-9"], ["1-0"], ["x.h5"], ["-1"], ["9" * 99], []]
)
def test_unknown_episodes_are_named_and_nothing_is_deleted(tmp_path, make, state_of, words):
    make.episode(tmp_path, seed=0)
    make.episode(tmp_path, seed=1)
    before = state_of(tmp_path)
    with pytest.raises(DatasetError, match=words[-1] if words else "no episodes named"):
        delete(tmp_path, words, purge=True, write=True)
    assert state_of(tmp_path) == before


def test_chosen_is_in_order_and_once(tmp_path, make):
    for seed in range(4):
        make.episode(tmp_path, seed=seed)
    names = [p.name for p in chosen(tmp_path, ["3", "1-2", "episode_000001.h5"])]
    assert names == [f"episode_00000{k}.h5" for k in (1, 2, 3)]
