"""Tiny run folders and episodes, made by the code that makes the real ones."""

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


@pytest.fixture
def metrics() -> Callable[..., List[Dict[str, float]]]:
    """``metrics(data_q, **columns)`` -> rows of ``metrics.csv``, all else constant."""

    def make(data_q: Sequence[float], **columns: float) -> List[Dict[str, float]]:
        others = {"td_error": 0.1, "target_variance": 1.0, "cql_term": -1.0, "policy_q": 0.5,
                  "mode_q": 0.6, "random_q": -3.0, "data_log_prob": 2.0, **columns}  # fmt: skip
        return [{"step": 500 * (i + 1), "data_q": float(q), **others} for i, q in enumerate(data_q)]

    return make


@pytest.fixture
def record() -> Callable[..., Path]:
    """``record(folder, labels, aborted=(), size=8, **meta)``: one episode a label."""
    return _record


def _record(
    folder: Path, labels: Sequence[int], aborted: Sequence[int] = (), size: int = 8, **meta: Any
) -> Path:
    observation, steps = widowx_observation(size), 9
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for seed, label in enumerate(labels):
        fields: Dict[str, Any] = {"actor": "scripted", "seed": seed, **meta}
        episode = EpisodeMeta("sim", TASK, WIDOWX_ACTION, observation, 5.0, **fields)
        writer = EpisodeWriter(folder, episode)
        for step in range(steps + 1):
            image = rng.integers(0, 255, (size, size, 3)).astype(np.uint8)
            last, stamp = step == steps, (step + 1) * 10**9
            reward = float(last and label == SUCCESS)
            writer.observe(Tick(stamp, step, {"image": image}, np.zeros(10), reward, last))
            if not last:
                action = np.zeros(WIDOWX_ACTION.size)
                writer.act(AppliedAction(stamp, action, action, "policy"))
        writer.finish(label, "simulator", "watchdog" if seed in aborted else "")
    return folder


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """``make_run(rows, algo="cql", warm_start=0, dataset=...)`` -> a run folder."""

    def make(
        rows: Sequence[Dict[str, float]], algo: str = "cql", name: str = "run",
        warm_start: int = 0, dataset: str = "nowhere",
    ) -> Path:  # fmt: skip
        folder = tmp_path / name
        algo_config = {
            "discount": 0.95,
            **({"warm_start_steps": warm_start} if algo == "cql" else {}),
        }
        run_folder.create_run(folder, {
            "dataset": dataset, "algo": algo, "algo_config": algo_config, "nets": {"hidden": [8, 8]},
            "train": {"steps": int(rows[-1]["step"]), "camera": "", "cache": None},
        })  # fmt: skip
        log = run_folder.CsvLog(folder / run_folder.METRICS)
        for row in rows:
            values = {k: v for k, v in row.items() if k != "step"}
            log.write(int(row["step"]), values)
            header = Header(algo, algo_config, NetConfig(), WIDOWX_ACTION, widowx_observation(8), "image",
                            5.0, TASK, "sim", "data", "f" * 64, int(row["step"]))  # fmt: skip
            path = run_folder.checkpoint_path(folder, int(row["step"]))
            save_checkpoint(path, header, {"w": torch.zeros(1)})
        log.close()
        return folder

    return make
