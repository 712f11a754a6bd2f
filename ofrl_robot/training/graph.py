"""Run a whole gradient step as one CUDA graph: gather, shift, forward, backward, Adam, averages.

The networks are small: a step is some hundred kernels of microseconds, and launching them one by
one from Python takes longer than they do. A graph launches them all at once. It reads the numbers
of its transitions from a buffer at a fixed address, and draws its random numbers from the device's
generator, which a replay advances as running the step would.
"""

from __future__ import annotations

import warnings
from typing import Callable, Dict, Optional, Sequence, Tuple

import numpy as np
import torch

from ofrl_robot.algos.base import Algorithm
from ofrl_robot.training.resident import ResidentData

Metrics = Dict[str, torch.Tensor]
Capture = Callable[[Callable[[], Metrics]], Tuple[Callable[[], None], Metrics]]

WARM_UP = 3  # steps run one by one first: libraries and the allocator settle


def cuda_graph(step: Callable[[], Metrics]) -> Tuple[Callable[[], None], Metrics]:
    """Record ``step`` without running it; return a function that runs it, and its results."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        metrics = step()
    return graph.replay, metrics


class GraphedUpdate:
    """``algorithm.update`` for transitions of ``data``, with the same random numbers.

    The first steps run one by one; they count. A step is recorded again when the algorithm enters
    another phase (``Algorithm.phase``), e.g. at the end of the warm start. If it cannot be recorded
    (a network waits for the host, no memory is left), a warning is issued and all steps run one by
    one.

    Args:
        algorithm: what to train.
        data: all transitions, on the device.
        batch_size: transitions per step.
        capture: how to record a step, by default :func:`cuda_graph` on a CUDA device. None on
            another device: there the same steps run one by one.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        data: ResidentData,
        batch_size: int,
        capture: Optional[Capture] = None,
    ) -> None:
        self._algorithm = algorithm
        self._data = data
        self._index = torch.zeros(batch_size, dtype=torch.int64, device=data.device)
        if capture is None and data.device.type == "cuda":
            capture = cuda_graph
        self._capture = capture
        self._begin(algorithm.phase)

    def __call__(self, draws: Sequence[np.ndarray]) -> Metrics:
        """Do one gradient step on the transitions int64 (B_k,) of each store.

        Returns its metrics; the next call overwrites them.
        """
        self._index.copy_(torch.from_numpy(self._data.number(draws)))
        if self._algorithm.phase != self._recorded_phase:
            self._begin(self._algorithm.phase)
        if self._replay is None and self._capture is not None and self._before_recording == 0:
            self._record()
        if self._replay is None:
            self._before_recording -= 1
            return self._step()
        done = self._algorithm.step  # replaying runs no Python
        self._replay()
        self._algorithm.step = done + 1
        return self._metrics

    def _step(self) -> Metrics:
        return self._algorithm.update_on(self._data.batch(self._index))

    def _begin(self, phase: str) -> None:
        self._recorded_phase = phase
        self._before_recording = WARM_UP
        self._replay: Optional[Callable[[], None]] = None
        self._metrics: Metrics = {}

    def _record(self) -> None:
        done = self._algorithm.step
        try:
            self._replay, self._metrics = self._capture(self._step)
        except RuntimeError as error:
            self._capture = None
            warnings.warn(
                f"the step cannot be recorded as a CUDA graph ({str(error).splitlines()[0]}); "
                "it runs kernel by kernel",
                stacklevel=2,
            )
        self._algorithm.step = done
