"""Makes small synthetic episodes and roboverse-format files; nothing is read from outside."""

import io
import pickle
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from ofrl_robot.control.signals import HOLD, HUMAN, POLICY, AppliedAction, Tick
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.schema import GROUP, SUCCESS, EpisodeMeta
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.specs import WIDOWX_ACTION, CameraSpec, ObservationSpec, widowx_observation

SIZE = 6  # pixels per side
PERIOD_NS = 200_000_000


def make_meta(size=SIZE, **fields):
    spec = widowx_observation(size)
    return EpisodeMeta("sim", "Task-v0", WIDOWX_ACTION, spec, 5.0, **fields)


def make_ticks(steps, seed=0, size=SIZE, terminal=False, cut=False):
    """T+1 random ticks and T actions; the last tick ends the episode unless ``cut``."""
    rng = np.random.default_rng(seed)
    ticks, applied = [], []
    for k in range(steps + 1):
        last = k == steps and not cut
        ticks.append(Tick(
            stamp_ns=(k + 1) * PERIOD_NS,
            step=k,
            images={"image": rng.integers(0, 256, (size, size, 3), np.uint8)},
            state=rng.normal(size=10),
            reward=float(last),
            terminated=last and terminal,
            truncated=last and not terminal,
        ))  # fmt: skip
        action = rng.uniform(-1, 1, 8)
        applied.append(AppliedAction(
            ticks[-1].stamp_ns, action, action * 2, POLICY, ("step",) * (k % 2), k % 3 == 0
        ))  # fmt: skip
    return ticks, applied[:steps]


def record(writer, ticks, applied):
    """Feed the writer; as many actions as given, each before the tick that follows it."""
    for k, tick in enumerate(ticks):
        writer.observe(tick)
        if k < len(applied):
            writer.act(applied[k])


def make_episode(folder, steps=5, seed=0, success=SUCCESS, meta=None, **options):
    """Write one finished episode; returns (path, ticks, applied)."""
    folder.mkdir(parents=True, exist_ok=True)
    meta = meta or make_meta(options.get("size", SIZE), seed=seed)
    writer = EpisodeWriter(folder, meta)
    ticks, applied = make_ticks(steps, seed, **options)
    record(writer, ticks, applied)
    return writer.finish(success, "test"), ticks, applied


def make_full_dataset(folder):
    """Three episodes in which nothing has its default: what a round trip must bring back."""
    cameras = (CameraSpec("image", SIZE, SIZE), CameraSpec("wrist", 5, 7, crop=(0, 1, 10, 14)))
    spec = ObservationSpec(cameras, ("a", "b", "c"), ("m", "rad", "1"), "base")
    folder.mkdir(parents=True)
    rng = np.random.default_rng(7)
    for number, (steps, success, terminal) in enumerate(
        ((1, 1, True), (4, 0, False), (9, -1, True))
    ):
        writer = EpisodeWriter(folder, EpisodeMeta(
            "arm", f"Task-v{number}", WIDOWX_ACTION, spec, 5.0, actor="policy",
            operator="Zoë", policy={"step": 3}, environment={"gravity": 9.8},
            seed=number - 1, calibration="2026-01-01",
        ))  # fmt: skip
        for step in range(steps + 1):
            stamp, last = 10**18 + (step * 3 + number) * 66_666_667, step == steps
            writer.observe(Tick(
                stamp_ns=stamp, step=step, state=rng.normal(size=3), reward=rng.normal(),
                images={c.name: rng.integers(0, 256, c.shape, np.uint8) for c in cameras},
                terminated=last and terminal, truncated=last and not terminal,
                image_stamps_ns={"image": stamp - 5, "wrist": stamp - 30_000_000},
                state_stamp_ns=stamp - 7,
            ))  # fmt: skip
            if not last:
                asked = rng.uniform(-2, 2, 8)
                asked[step % 8] = np.nan
                writer.act(AppliedAction(
                    stamp, rng.uniform(-1, 1, 8), asked, (HOLD, HUMAN, POLICY)[step % 3],
                    ("step",) * (step % 2), step % 3 == 1, stamp + 11,
                ))  # fmt: skip
        writer.finish(success, "operator", "stopped" * number)
    return folder


def require_same_episodes(folder, other, count=None):
    """Every array and attribute of the episodes is the same to the bit, but for ``created``."""
    expected, found = open_dataset(folder).paths[:count], open_dataset(other).paths
    assert len(found) == len(expected)
    for path, twin in zip(expected, found):
        with h5py.File(str(path), "r") as a, h5py.File(str(twin), "r") as b:
            attributes, others = dict(a[GROUP].attrs), dict(b[GROUP].attrs)
            created = attributes.pop("created"), others.pop("created")
            assert all(created)
            recorded = attributes.pop("recorded"), others.pop("recorded")
            assert recorded[1] in (recorded[0] or created[0], recorded[0])
            assert attributes == others
            names, twins = [], []
            a[GROUP].visit(names.append)
            b[GROUP].visit(twins.append)
            assert names == twins
            for name in names:
                if isinstance(a[GROUP][name], h5py.Dataset):
                    left, right = a[GROUP][name][:], b[GROUP][name][:]
                    assert left.dtype == right.dtype and left.tobytes() == right.tobytes(), name


def make_trajectory(steps=4, seed=0, success=True, size=SIZE):
    """One trajectory as roboverse's scripted collection stores it."""
    rng = np.random.default_rng(seed)
    observations = [
        {
            "object_position": rng.normal(size=3),
            "state": rng.normal(size=10),
            "image": rng.integers(0, 256, (size, size, 3), np.uint8),
        }
        for _ in range(steps + 1)
    ]
    return {
        "observations": observations[:-1],
        "next_observations": [{k: v.copy() for k, v in o.items()} for o in observations[1:]],
        "actions": [rng.uniform(-1, 1, 8) for _ in range(steps)],
        "rewards": [0.0] * (steps - 1) + [float(success)] if steps else [],
        "terminals": [False] * steps,
        "agent_infos": [{"done": False, "stage": k} for k in range(steps)],
        "env_infos": [
            {"grasp_success": np.bool_(success), "drawer": np.float64(k)} for k in range(steps)
        ],
    }


def npy_bytes(trajectories, core=None, protocol=3):
    """A .npy of an object array; ``core`` renames numpy's private package in the pickle."""
    array = np.empty(len(trajectories), object)
    array[:] = trajectories
    data = pickle.dumps(array, protocol)
    if core is not None:
        assert protocol < 4  # later protocols frame their text, so renaming would break them
        data = data.replace(b"cnumpy._core.", b"cnumpy.core.")
        data = data.replace(b"cnumpy.core.", b"c" + core.encode() + b".")
    return npy_header(len(trajectories)) + data


def npy_header(length):
    file = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


@pytest.fixture(scope="session")
def make():
    """The makers above under one name."""
    return SimpleNamespace(
        meta=make_meta, ticks=make_ticks, record=record, episode=make_episode,
        full_dataset=make_full_dataset, trajectory=make_trajectory, npy_bytes=npy_bytes,
        npy_header=npy_header,
    )  # fmt: skip


def folder_state(folder):
    """Every file below ``folder`` with its content, to show that nothing was changed."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return [(str(p.relative_to(folder)), p.read_bytes()) for p in files]


@pytest.fixture(scope="session")
def state_of():
    return folder_state


@pytest.fixture(scope="session")
def require_same():
    return require_same_episodes
