"""Run a whole gradient step as one CUDA graph: gather, shift, forward, backward, Adam, averages.

The networks are small: a step is some hundred kernels of microseconds, and launching them one by
one from Python takes longer than they do. A graph launches them all at once. It reads its batch, or
the numbers of its transitions, from buffers at fixed addresses, and draws its random numbers from
the device's generator, which a replay advances as running the step would.
"""

from __future__ import annotations

import collections
import contextlib
import warnings
from typing import (
    Any,
    Callable,
    DefaultDict,
    Dict,
    Iterable,
    Iterator,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
import torch

from ofrl_robot.algos.base import Algorithm
from ofrl_robot.training.resident import ResidentData
from ofrl_robot.training.staging import StreamedData

Metrics = Dict[str, torch.Tensor]
Recorded = Tuple[Callable[[], None], Metrics]
Capture = Callable[[Callable[[], Metrics]], Recorded]

WARM_UP = 3  # steps of a phase run one by one first: libraries and the allocator settle


class CudaGraphs:
    """Records steps as CUDA graphs. They share their memory: no two of them run at once."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, step: Callable[[], Metrics]) -> Recorded:
        """Record ``step`` without running it; return a function that runs it, and its results."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            metrics = step()
        return graph.replay, metrics


class GraphedUpdate:
    """``algorithm.update`` for transitions of ``data``, with the same random numbers.

    There is one graph for each phase of the algorithm (``Algorithm.phase``), e.g. for the warm
    start, and it is kept: an algorithm may alternate between phases. The first steps of a phase run
    one by one; they count. If a step cannot be recorded (a network waits for the host, no memory is
    left), a warning is issued and steps that are not recorded run one by one.

    Args:
        algorithm: what to train.
        data: all transitions, on the device or streamed to it.
        capture: how to record a step, by default :class:`CudaGraphs` on a CUDA device. None on
            another device: there the same steps run one by one.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        data: Union[ResidentData, StreamedData],
        capture: Optional[Capture] = None,
    ) -> None:
        self._algorithm = algorithm
        self._data = data
        if capture is None and data.device.type == "cuda":
            capture = CudaGraphs()
        self._capture = capture
        self._recorded: Dict[str, Recorded] = {}
        self._done: DefaultDict[str, int] = collections.defaultdict(int)  # one by one, by phase

    @property
    def streams(self) -> bool:
        """Whether a step reads frames from the host."""
        return isinstance(self._data, StreamedData)

    def __call__(self, draws: Sequence[np.ndarray]) -> Metrics:
        """Do one gradient step on the transitions int64 (B_k,) of each store.

        Returns its metrics; the next call overwrites them.
        """
        self._data.stage(draws)
        phase = self._algorithm.phase
        if phase not in self._recorded and self._capture and self._done[phase] >= WARM_UP:
            self._record(phase, self._capture)
        if phase not in self._recorded:
            self._done[phase] += 1
            return self._step()
        replay, metrics = self._recorded[phase]
        done = self._algorithm.step  # replaying runs no Python
        replay()
        self._algorithm.step = done + 1
        return metrics

    def _step(self) -> Metrics:
        return self._algorithm.update_on(self._data.batch())

    def _record(self, phase: str, capture: Capture) -> None:
        done = self._algorithm.step
        try:
            with _recordable(self._algorithm.optimizers.values()):
                self._recorded[phase] = capture(self._step)
        except RuntimeError as error:
            self._capture = None
            warnings.warn(
                f"the step cannot be recorded as a CUDA graph ({str(error).splitlines()[0]}); "
                "it runs kernel by kernel",
                stacklevel=3,
            )
        self._algorithm.step = done


@contextlib.contextmanager
def _recordable(optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[None]:
    """Declare optimisers capturable inside the context only: torch warns of it at other steps.

    Fused ones keep their step counts on the device anyway, which is all that a graph needs.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    before = [group["capturable"] for group in groups]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group, value in zip(groups, before):
            group["capturable"] = value
