"""Trains one algorithm on one dataset and writes the run folder."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Dict

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ofrl_robot.algos.base import Algorithm
from ofrl_robot.algos.registry import make_algorithm
from ofrl_robot.data.frames import FrameStore
from ofrl_robot.data.mixing import Source, open_sources
from ofrl_robot.data.reader import Dataset
from ofrl_robot.data.sampler import UniformSampler
from ofrl_robot.errors import ConfigError, DatasetError
from ofrl_robot.policy.checkpoint import Header, save_checkpoint
from ofrl_robot.training import run_folder
from ofrl_robot.training.config import RunConfig
from ofrl_robot.training.probe import Probe


def train(config: RunConfig, folder: Path) -> Path:
    """Run the whole training; returns the run folder.

    Raises DatasetError or ConfigError before anything is written when the data cannot be
    trained on. Ctrl-C ends the run; its checkpoints so far are kept.
    """
    settings = config.train
    if folder.exists():
        raise ConfigError("the run exists already", "choose another --name or remove it", folder)
    try:
        device = torch.device(settings.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            "device {!r} cannot be used ({})".format(settings.device, str(error).splitlines()[0]),
            "use --device cpu",
        ) from error
    source = Source(
        config.dataset,
        first=settings.num_traj,
        split=settings.split,
        reward_scale=settings.reward_scale,
        reward_bias=settings.reward_bias,
    )
    (opened,) = open_sources([source], settings.camera, settings.cache, settings.memory_mb)
    dataset, store = opened.dataset, opened.store
    camera = settings.camera or dataset.observation_spec.cameras[0].name
    check_trainable(dataset, store, config)

    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    shape = store.frames.shape[1:]
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and has_bf16(device))
    algorithm = make_algorithm(
        config.hyper, config.nets, shape, dataset.action_spec.size, device, bf16
    )
    run_folder.create_run(folder, config.to_dict())
    _Loop(config, folder, dataset, store, camera, algorithm).run()
    return folder


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is native there (on others it is slower than float32)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def check_trainable(dataset: Dataset, store: FrameStore, config: RunConfig) -> None:
    """Refuse data from which ``config.algo`` cannot learn; says why and what to do."""
    where = dataset.folder
    warm = getattr(config.hyper, "warm_start_steps", 0)
    if warm >= config.train.steps:
        raise ConfigError(
            "the warm start ({} steps) fills the whole run ({} steps)".format(
                warm, config.train.steps
            ),
            "raise --steps or lower --warm-start-steps",
        )
    if len(store) < config.train.batch_size:
        raise DatasetError(
            "{} transitions, fewer than one batch of {}".format(
                len(store), config.train.batch_size
            ),
            "collect more or lower --batch-size",
            where,
        )
    if dataset.successes == 0:
        raise DatasetError(
            "not one of {} episodes is labelled a success".format(len(dataset.paths)),
            "collect or label successes first",
            where,
        )
    if config.algo != "bc" and not store.rewards.any():
        raise DatasetError(
            "every reward is zero, so there is no value to learn",
            "label rewards, or train --algo bc",
            where,
        )


class _Loop:
    def __init__(
        self, config: RunConfig, folder: Path, dataset: Dataset, store: FrameStore,
        camera: str, algorithm: Algorithm,
    ) -> None:  # fmt: skip
        self._config, self._folder, self._algorithm = config, folder, algorithm
        self._dataset, self._store, self._camera = dataset, store, camera
        train = config.train
        self._sampler = UniformSampler(store, train.batch_size, train.seed)
        self._probe = Probe(store, train.probe_size, train.seed)

    def run(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        train = self._config.train
        board = SummaryWriter(str(self._folder / "tensorboard"))
        losses = run_folder.CsvLog(self._folder / run_folder.LOSSES, board, "train/")
        probes = run_folder.CsvLog(self._folder / run_folder.METRICS, board, "probe/")
        progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=8),  # fits 80 columns
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[rate]}"), TextColumn("eta"),
            TimeRemainingColumn(), TextColumn("{task.fields[metrics]}"),
        )  # fmt: skip
        try:
            with progress:
                bar = progress.add_task(self._config.algo, total=train.steps, rate="", metrics="")
                start = time.monotonic()
                while self._algorithm.step < train.steps:
                    values = self._algorithm.update(self._sampler.sample())
                    step = self._algorithm.step
                    if step % train.log_every == 0 or step == train.steps:
                        row = {k: float(v) for k, v in values.items()}
                        self._require_finite(row, step)
                        losses.write(step, row)
                        progress.update(
                            bar, completed=step, rate=_rate(step, start), metrics=_short(row)
                        )
                    if step % train.checkpoint_every == 0 or step == train.steps:
                        metrics = self._probe.measure(self._algorithm)
                        self._save(step, metrics)
                        probes.write(step, metrics)
                        # a line a checkpoint: the history, and all that a log file shows
                        words = (
                            "checkpoint {:>6}".format(step),
                            _rate(step, start),
                            _short(metrics),
                        )
                        progress.console.print("  ".join(words), highlight=False)
        finally:
            losses.close()
            probes.close()
            board.close()

    def _require_finite(self, row: Dict[str, float], step: int) -> None:
        bad = [k for k, v in row.items() if not math.isfinite(v)]
        if bad:
            steps = run_folder.checkpoint_steps(self._folder)
            raise ConfigError(
                "{} became non-finite at step {}".format(", ".join(bad), step),
                "lower the learning rates; last good checkpoint: step {}".format(
                    steps[-1] if steps else "none"
                ),
                self._folder,
            )

    def _save(self, step: int, metrics: Dict[str, float]) -> None:
        config, meta = self._config.to_dict(), self._dataset.metas[0]
        header = Header(
            algo=self._config.algo,
            hyper=config["hyper"],
            nets=self._config.nets,
            action_spec=self._dataset.action_spec,
            observation_spec=self._dataset.observation_spec,
            camera=self._camera,
            control_rate_hz=meta.control_rate_hz,
            task=meta.task,
            robot=meta.robot,
            dataset=self._dataset.folder.name,
            dataset_fingerprint=self._store.fingerprint,
            step=step,
            probe=metrics,
        )
        weights = self._algorithm.average_actor.state_dict()
        save_checkpoint(run_folder.checkpoint_path(self._folder, step), header, weights)


def _rate(step: int, start: float) -> str:
    """Steps per second since ``start`` (monotonic seconds), probes and checkpoints included."""
    return "{:.1f} steps/s".format(step / max(time.monotonic() - start, 1e-6))


def _short(row: Dict[str, float]) -> str:
    """Dataset Q, TD error and un-multiplied CQL term, or what imitation has instead."""
    names = (("data_q", "Q"), ("td_error", "TD"), ("cql_term", "CQL"))
    if "data_q" not in row:
        names = (("actor_loss", "loss"), ("data_log_prob", "log pi(data)"))
    return "  ".join("{} {:.3g}".format(label, row[k]) for k, label in names if k in row)
