"""What every import does, whatever the format, on a source in memory."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ofrl_robot.cli import main
from ofrl_robot.data.convert import importing
from ofrl_robot.data.convert.importing import Imported, Source, import_episodes
from ofrl_robot.data.convert.options import ImportOptions
from ofrl_robot.data.convert.trajectory import converted_episode, converted_meta, unnamed_actions
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.errors import DatasetError, HostilePickleError, OutputError, SpecMismatchError
from ofrl_robot.files import new_file, new_folder
from ofrl_robot.specs import CameraSpec, ObservationSpec


def trajectory(steps=3, size=6, seed=0, width=2):
    rng = np.random.default_rng(seed)
    spec = ObservationSpec((CameraSpec("image", size, size),), ("a",), ("m",), "base")
    meta = converted_meta("arm", "Source-v0", 5.0, unnamed_actions(np.ones(width)), spec)
    meta.success, meta.label_source = 1, "an operator"
    return converted_episode(
        meta, {"image": rng.integers(0, 256, (steps + 1, size, size, 3), np.uint8)},
        rng.normal(size=(steps + 1, 1)), rng.uniform(-1, 1, (steps, width)), np.ones(steps), True,
    )  # fmt: skip


class Memory(Source):
    """A list of episodes, and of errors to raise instead."""

    def __init__(self, *entries):
        self.path, self._entries, self.in_memory = Path("memory"), entries, []
        self.names = [f"memory: {i}" for i in range(len(entries))]

    def read(self, number):
        entry = self._entries[number]
        if isinstance(entry, Exception):
            raise entry
        return entry

    def splits(self):
        return {"train": [self.names[0], self.names[-1]], "valid": self.names[1:2]}


def run(out, *entries, **options):
    return import_episodes(Memory(*entries), out, ImportOptions(**options))


def test_the_first_so_many_with_progress_and_splits_of_what_is_there(tmp_path):
    seen = []
    source = Memory(*[trajectory(seed=i) for i in range(4)])
    made = import_episodes(
        source, tmp_path / "out", ImportOptions(num_traj=2), lambda *n: seen.append(n)
    )
    assert made == Imported(episodes=2, empty=0, bad=0) and seen == [(1, 2), (2, 2)]
    assert len(open_dataset(tmp_path / "out").paths) == 2
    splits = json.loads((tmp_path / "out" / "splits.json").read_text())
    assert splits == {"train": ["episode_000000.h5"], "valid": ["episode_000001.h5"]}


def test_zero_rewards_are_prior_data_without_a_label(tmp_path):
    run(tmp_path / "out", trajectory(), zero_rewards=True, task="Mine-v0")
    episode = read_episode(open_dataset(tmp_path / "out").paths[0])
    assert not episode.rewards.any() and episode.terminals[-1]
    assert (episode.meta.success, episode.meta.label_source) == (-1, "")
    assert episode.meta.task == "Mine-v0"


def test_images_are_resized_by_area(tmp_path):
    source = trajectory(size=8)
    run(tmp_path / "out", source, image_size=4)
    episode = read_episode(open_dataset(tmp_path / "out").paths[0])
    blocks = source.images["image"].reshape(-1, 4, 2, 4, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(episode.images["image"], blocks, atol=0.51)
    assert episode.meta.observation_spec.cameras[0].shape == (4, 4, 3)


def changed(**fields):
    episode = trajectory()
    for name, value in fields.items():
        setattr(episode, name, value)
    return episode


BAD = {
    "a reader's word": (DatasetError("torn", "", "memory: 1"), "torn"),
    "anything else": (RuntimeError("out of cheese"), "cannot be read .*cheese"),
    "NaN state": (changed(state=np.full((4, 1), np.nan)), "state not finite"),
    "NaN reward": (changed(rewards=np.full(3, np.nan)), "rewards not finite"),
    "rewards short": (changed(rewards=np.ones(2)), "rewards do not fit its 3 actions"),
    "images short": (changed(images={"image": np.zeros((3, 6, 6, 3), np.uint8)}), "images of"),
    "stamps long": (changed(timestamps={"obs": np.arange(9)}), "timestamps of obs"),
    "goes on": (changed(terminals=np.array([False, True, True])), "step 1.*goes on after its end"),
    "ragged images": (
        changed(images={"image": [np.zeros((6, 6, 3), np.uint8)] * 3
                        + [np.zeros((6, 5, 3), np.uint8)]}), "images of image are",
    ),
    "other camera": (trajectory(size=7), "cameras"),
    "other actions": (trajectory(width=3), "ActionSpec of memory: 1"),
}  # fmt: skip


@pytest.mark.parametrize("entry, text", [pytest.param(*c, id=n) for n, c in BAD.items()])
def test_a_bad_trajectory_is_named_or_left_out(tmp_path, entry, text, caplog):
    with pytest.raises((DatasetError, SpecMismatchError), match=text) as caught:
        run(tmp_path / "out", trajectory(), entry, trajectory())
    assert "memory: 1" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    made = run(tmp_path / "out", trajectory(), entry, trajectory(), skip_bad=True)
    assert made == Imported(episodes=2, empty=0, bad=1) and "memory: 1" in caplog.text
    assert [p.name for p in open_dataset(tmp_path / "out").paths][-1] == "episode_000001.h5"


def test_a_hostile_trajectory_is_never_merely_left_out(tmp_path):
    with pytest.raises(HostilePickleError):
        run(tmp_path / "out", trajectory(), HostilePickleError("asks for os.system"), skip_bad=True)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_convert_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="memory: has no trajectory"):
        run(tmp_path / "out", trajectory(steps=0), DatasetError("torn"), skip_bad=True)
    assert list(tmp_path.iterdir()) == []


def test_one_trajectory_at_a_time_is_in_memory(tmp_path, monkeypatch):
    """Whatever the number of trajectories: the one before is written when the next is read."""
    order = []

    class Watched(Memory):
        def read(self, number):
            order.append(("read", number))
            return super().read(number)

    real = importing.write_episode

    def write(episode, folder, index):
        order.append(("write", index))
        return real(episode, folder, index)

    monkeypatch.setattr(importing, "write_episode", write)
    import_episodes(Watched(*[trajectory()] * 3), tmp_path / "out", ImportOptions())
    assert order == [(what, i) for i in range(3) for what in ("read", "write")]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError(28, "No space left")])
@pytest.mark.parametrize("new", [new_folder, new_file])
def test_what_is_broken_off_leaves_nothing(tmp_path, new, interruption):
    with pytest.raises((KeyboardInterrupt, OutputError)):
        with new(tmp_path / "deep" / "out") as building:
            assert building.parent.exists() and not (tmp_path / "deep" / "out").exists()
            raise interruption
    assert list((tmp_path / "deep").iterdir()) == []


def test_what_is_killed_leaves_nothing_under_the_name(tmp_path):
    code = (
        "import os, signal, pathlib\n"
        "from ofrl_robot.files import new_file\n"
        "with new_file(pathlib.Path('out.h5')) as path:\n"
        "    path.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
    done = subprocess.run([sys.executable, "-c", code], cwd=str(tmp_path), env=environment)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out.h5").exists()


def test_an_existing_file_is_never_replaced(tmp_path):
    out = tmp_path / "out.h5"
    with pytest.raises(OutputError, match="exists by now"), new_file(out) as building:
        building.write_bytes(b"ours")
        out.write_bytes(b"mine")  # another process was quicker
    with pytest.raises(OutputError, match="exists already"), new_file(out):
        pass
    assert out.read_bytes() == b"mine" and [p.name for p in tmp_path.iterdir()] == ["out.h5"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "format, name", [("robomimic", "a.hdf5"), ("minari", "a-v0"), ("d4rl", "a.npz")]
)
def test_out_and_in_again_on_the_command_line(tmp_path, make, capsys, require_same, format, name):
    folder, out, back = make.full_dataset(tmp_path / "data"), tmp_path / name, tmp_path / "back"
    assert main(["data", "export", format, str(folder), str(out)]) == 0
    assert capsys.readouterr().out == f"3 episodes -> {out}\n"
    words = ["data", "convert", format, str(out), str(back)]
    assert main([*words, "--num-traj", "2"]) == 0
    assert capsys.readouterr().out == f"2 episodes -> {back}\n"
    require_same(folder, back, 2)
    assert main(words) == 2  # it is there
    assert "choose a new folder" in capsys.readouterr().err
