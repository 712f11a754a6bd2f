"""Tiny run folders and episodes, made by the code that makes the real ones.

The fixtures are imported by the conftest.py of each folder that needs them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

import numpy as np
import pytest
import torch

from ofrl_robot.control.signals import AppliedAction, Tick
from ofrl_robot.data.episodes.schema import SUCCESS, EpisodeMeta
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.policy.checkpoint import Header, save_checkpoint
from ofrl_robot.specs import WIDOWX_ACTION, widowx_observation
from ofrl_robot.training import run_folder

TASK = "Widow250SingleObjGrasp-v0"
STEPS = 9  # transitions of a recorded episode
CONSTANT_METRICS = {
    "td_error": 0.1,
    "target_variance": 1.0,
    "cql_term": -1.0,
    "policy_q": 0.5,
    "mode_q": 0.6,
    "random_q": -3.0,
    "data_log_prob": 2.0,
}


def metric_rows(data_q: Sequence[float], **columns: float) -> List[Dict[str, float]]:
    """Return rows of ``metrics.csv`` with this dataset Q; all other columns are constant."""
    others = {**CONSTANT_METRICS, **columns}
    return [{"step": 500 * (i + 1), "data_q": float(q), **others} for i, q in enumerate(data_q)]


def record_episodes(
    folder: Path, labels: Sequence[int], aborted: Sequence[int] = (), size: int = 8, **meta: Any
) -> Path:
    """Write one episode of ``STEPS`` steps for each label; return the folder.

    Args:
        aborted: numbers of the episodes that a watchdog stopped.
        size: height and width of the image in pixels.
        meta: fields of :class:`EpisodeMeta`.
    """
    observation = widowx_observation(size)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for seed, label in enumerate(labels):
        fields: Dict[str, Any] = {"actor": "scripted", "seed": seed, **meta}
        episode = EpisodeMeta("sim", TASK, WIDOWX_ACTION, observation, 5.0, **fields)
        writer = EpisodeWriter(folder, episode)
        for step in range(STEPS + 1):
            image = rng.integers(0, 255, (size, size, 3)).astype(np.uint8)
            last = step == STEPS
            stamp = (step + 1) * 10**9
            reward = float(last and label == SUCCESS)
            writer.observe(Tick(stamp, step, {"image": image}, np.zeros(10), reward, last))
            if not last:
                action = np.zeros(WIDOWX_ACTION.size)
                writer.act(AppliedAction(stamp, action, action, "policy"))
        writer.finish(label, "simulator", "watchdog" if seed in aborted else "")
    return folder


def write_run(
    folder: Path,
    rows: Sequence[Dict[str, float]],
    algo: str = "cql",
    warm_start: int = 0,
    dataset: str = "nowhere",
) -> Path:
    """Write a run folder with a checkpoint of one weight for each row of metrics."""
    algo_config: Dict[str, Any] = {"discount": 0.95}
    if algo == "cql":
        algo_config["warm_start_steps"] = warm_start
    config = {
        "dataset": dataset,
        "algo": algo,
        "algo_config": algo_config,
        "nets": {"hidden": [8, 8]},
        "train": {"steps": int(rows[-1]["step"]), "observe": "", "cache": None},
    }
    run_folder.create_run(folder, config)
    log = run_folder.CsvLog(folder / run_folder.METRICS)
    for row in rows:
        step = int(row["step"])
        log.write(step, {name: value for name, value in row.items() if name != "step"})
        path = run_folder.checkpoint_path(folder, step)
        save_checkpoint(path, _header(algo, algo_config, step), {"actor.w": torch.zeros(1)})
    log.close()
    return folder


def _header(algo: str, algo_config: Dict[str, Any], step: int) -> Header:
    return Header(
        algo=algo,
        algo_config=algo_config,
        nets=NetConfig(),
        action_spec=WIDOWX_ACTION,
        observation_spec=widowx_observation(8),
        observe=("image",),
        control_rate_hz=5.0,
        task=TASK,
        robot="sim",
        dataset="data",
        dataset_fingerprint="f" * 64,
        step=step,
    )


@pytest.fixture
def metrics() -> Callable[..., List[Dict[str, float]]]:
    """Function :func:`metric_rows`."""
    return metric_rows


@pytest.fixture
def record() -> Callable[..., Path]:
    """Function :func:`record_episodes`."""
    return record_episodes


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Function ``make_run(rows, name="run", **kwargs)``: :func:`write_run` below ``tmp_path``."""

    def make(rows: Sequence[Dict[str, float]], name: str = "run", **kwargs: Any) -> Path:
        return write_run(tmp_path / name, rows, **kwargs)

    return make
