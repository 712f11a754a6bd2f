"""The contestants of time_to_success.py: each learns from a dataset, acts, and can go on later."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Dict, List

NAME = "image"  # of the one camera


def episodes(folder: Path) -> List[Any]:
    """Return all episodes of a dataset, with their frames."""
    from ofrl_robot.data.datasets.dataset import open_dataset
    from ofrl_robot.data.episodes.reader import read_episode

    return [read_episode(path) for path in open_dataset(folder).paths]


class Ours:
    """`ofrl train DATASET --config FILE`: the same learner, without its probes and checkpoints."""

    def __init__(self, settings: argparse.Namespace) -> None:
        from ofrl_robot.cli.commands import read_command
        from ofrl_robot.training.learner import Learner

        words = ["train", settings.dataset, "--config", settings.config]
        words += ["--threads", str(settings.threads), *settings.train]
        self._learner = Learner(read_command(words).config())

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self._learner.update()

    def act(self, image: Any) -> Any:
        """Return the mode of the averaged policy for one image uint8 (H, W, 3)."""
        import torch

        with torch.no_grad():
            actor = self._learner.algorithm.average_actor
            return actor({NAME: torch.from_numpy(image)[None]}).mode[0].numpy()

    def save(self, folder: Path) -> None:
        from ofrl_robot.training.state import save_state

        save_state(folder, self._learner)

    def load(self, folder: Path) -> None:
        from ofrl_robot.training.state import read_state

        state = read_state(folder)
        assert state is not None, f"no state in {folder}"
        state.restore(self._learner)


class D3rlpy:
    """d3rlpy's CQL as it comes, its own pixel encoder, batch size and samples among it."""

    def __init__(self, settings: argparse.Namespace) -> None:
        import numpy as np
        import torch
        from d3rlpy.algos import CQLConfig
        from d3rlpy.dataset import Episode, create_infinite_replay_buffer
        from d3rlpy.preprocessing import PixelObservationScaler

        torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        np.random.seed(settings.seed)
        self._buffer = create_infinite_replay_buffer(
            [
                Episode(
                    np.ascontiguousarray(each.images[NAME][:-1].transpose(0, 3, 1, 2)),
                    each.actions.astype(np.float32),
                    each.rewards.astype(np.float32)[:, None],
                    bool(each.terminals[-1]),
                )
                for each in episodes(Path(settings.dataset))
            ]
        )
        config = CQLConfig(observation_scaler=PixelObservationScaler())
        self._algorithm = config.create(device="cpu:0")
        self._algorithm.build_with_dataset(self._buffer)

    def train(self, steps: int) -> None:
        for _ in range(steps):
            batch = self._buffer.sample_transition_batch(self._algorithm.batch_size)
            self._algorithm.update(batch)

    def act(self, image: Any) -> Any:
        return self._algorithm.predict(image.transpose(2, 0, 1)[None])[0]

    def save(self, folder: Path) -> None:
        self._algorithm.save_model(str(folder / "d3rlpy.pt"))

    def load(self, folder: Path) -> None:
        self._algorithm.load_model(str(folder / "d3rlpy.pt"))


class Robomimic:
    """robomimic's BC as it comes: ResNet-18 with a pooled code, squared error, its optimiser."""

    def __init__(self, settings: argparse.Namespace) -> None:
        import numpy as np
        import torch
        from robomimic.algo import algo_factory
        from robomimic.config import config_factory
        from robomimic.utils import obs_utils

        torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        read = episodes(Path(settings.dataset))
        self._images = np.concatenate([each.images[NAME][:-1] for each in read])
        self._actions = np.concatenate([each.actions for each in read]).astype(np.float32)
        self._rng = np.random.default_rng(settings.seed)
        config = config_factory("bc")
        with config.values_unlocked():
            config.observation.modalities.obs.low_dim = []
            config.observation.modalities.obs.rgb = [NAME]
        obs_utils.initialize_obs_utils_with_config(config)
        self._batch_size = config.train.batch_size
        height, width, _ = self._images.shape[1:]
        self._algorithm = algo_factory(
            "bc", config, {NAME: [3, height, width]}, self._actions.shape[1], torch.device("cpu")
        )
        self._algorithm.set_train()
        self._step = 0

    def train(self, steps: int) -> None:
        import torch

        self._algorithm.set_train()
        for _ in range(steps):
            rows = self._rng.integers(len(self._images), size=self._batch_size)
            batch = {
                "obs": {NAME: self._pixels(self._images[rows])[:, None]},
                "actions": torch.from_numpy(self._actions[rows])[:, None],
            }
            ready = self._algorithm.process_batch_for_training(batch)
            self._algorithm.train_on_batch(ready, epoch=0)
            self._step += 1

    def act(self, image: Any) -> Any:
        import torch

        self._algorithm.set_eval()
        with torch.no_grad():
            return self._algorithm.get_action({NAME: self._pixels(image[None])})[0].numpy()

    def save(self, folder: Path) -> None:
        import torch

        optimizers = {k: v.state_dict() for k, v in self._algorithm.optimizers.items()}
        weights = self._algorithm.serialize()
        torch.save({"weights": weights, "optimizers": optimizers}, folder / "robomimic.pt")

    def load(self, folder: Path) -> None:
        import torch

        state = torch.load(folder / "robomimic.pt", weights_only=True)
        self._algorithm.deserialize(state["weights"])
        for name, optimizer in self._algorithm.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])

    @staticmethod
    def _pixels(images: Any) -> Any:
        """Images as robomimic's loader gives them: float (B, 3, H, W) in [0, 1]."""
        import torch

        return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0


SIDES: Dict[str, Any] = {"ours": Ours, "d3rlpy": D3rlpy, "robomimic": Robomimic}
