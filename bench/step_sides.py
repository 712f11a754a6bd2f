"""The sides of train_step.py, as they run in the process that is measured."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

from contestant import Order

sys.path.append(
    str(Path(__file__).resolve().parent.parent)
)  # for an interpreter without ofrl_robot

PRECISIONS = ("fp32", "bf16")
ACTIONS, CHANNELS = 8, 16
# d3rlpy's PixelEncoder as it comes: channels, kernel and stride of each layer, then its units
DEFAULT_FILTERS, DEFAULT_FEATURES = ((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

Step = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Case:
    """What the sides of one ratio compute.

    Attributes:
        batch, samples: transitions, and sampled actions of each of the three kinds.
        filters: channels, kernel and stride of each layer of the trunk; none for the papers'.
        hidden: units after it.
    """

    batch: int
    samples: int
    filters: Tuple[Tuple[int, int, int], ...]
    hidden: Tuple[int, ...]


def cases(settings: argparse.Namespace) -> Dict[str, Case]:
    """The case of each of our sides, by the beginning of its name."""
    narrow = tuple((CHANNELS, 3, stride) for stride in settings.strides)
    return {
        "ours": Case(settings.batch_size, settings.samples, (), tuple(settings.hidden)),
        "small": Case(
            settings.d3rlpy_batch_size, settings.samples, narrow, (settings.feature_size,)
        ),
        "default": Case(
            settings.default_batch_size, settings.default_samples, DEFAULT_FILTERS,
            (DEFAULT_FEATURES,),
        ),
    }  # fmt: skip


def random_batch(batch: int, size: int) -> Dict[str, Any]:
    """Columns of B transitions, the same for all sides."""
    import numpy as np

    rng = np.random.default_rng(0)
    shape = (batch, size, size, 3)
    return {
        "images": rng.integers(0, 256, shape, np.uint8),
        "next_images": rng.integers(0, 256, shape, np.uint8),
        "actions": rng.uniform(-0.99, 0.99, (batch, ACTIONS)).astype(np.float32),
        "rewards": (rng.random(batch) < 0.1).astype(np.float32),
        "terminals": rng.random(batch) < 0.02,
    }


def parameter_count(modules: Sequence[Any]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def our_algorithm(case: Case, size: int, bf16: bool, device: str) -> Any:
    """CQL as `ofrl train` builds it, with the trunk of ``case``."""
    import torch
    from torch import nn

    from ofrl_robot.algos.build import Build, make_algorithm
    from ofrl_robot.algos.configs.cql import CQLConfig
    from ofrl_robot.nets import encoder
    from ofrl_robot.nets.config import NetConfig
    from ofrl_robot.specs import WIDOWX_ACTION

    def pixel_trunk(dropout: float) -> nn.Sequential:
        layers: List[nn.Module] = []
        channels = 3
        for out, kernel, stride in case.filters:
            layers += [nn.Conv2d(channels, out, kernel, stride), nn.ReLU()]
            channels = out
        return nn.Sequential(*layers)

    if case.filters:  # in this process only: each contestant has one of its own
        encoder.TRUNKS["cog_small"] = pixel_trunk
    nets = NetConfig(
        encoder="cog_small" if case.filters else "cog",
        latent=0,
        largest_map=0,
        hidden=case.hidden,
        critic_encoders="separate",
    )
    config = CQLConfig(warm_start_steps=0, shift=4, cql_samples=(case.samples,) * 3)
    shapes = {"image": (size, size, 3)}
    return make_algorithm(config, Build(nets, shapes, WIDOWX_ACTION, torch.device(device), bf16))


def our_batch(columns: Dict[str, Any], discount: float) -> Any:
    """Return the columns of :func:`random_batch` as a batch of one-step transitions."""
    from ofrl_robot.data.replay.batch import Batch

    alive = (~columns["terminals"]).astype("float32")
    return Batch(
        observations={"image": columns["images"]},
        next_observations={"image": columns["next_images"]},
        actions=columns["actions"],
        rewards=columns["rewards"],
        bootstrap=discount * alive,
        next_actions=columns["actions"],
        has_next_action=alive,
        returns=columns["rewards"],
    )


def ours(name: str, bf16: bool, settings: argparse.Namespace) -> Tuple[Step, int]:
    import torch

    from ofrl_robot.training.learner import has_bf16

    if bf16 and not (has_bf16(torch.device("cpu"))):
        raise RuntimeError("the processor has no bfloat16 arithmetic")
    case = cases(settings)[name]
    algorithm = our_algorithm(case, settings.image_size, bf16, "cpu")
    batch = our_batch(random_batch(case.batch, settings.image_size), algorithm.config.discount)
    trained = parameter_count([algorithm.actor, algorithm.critic])
    return functools.partial(algorithm.update, batch), trained


def reference(settings: argparse.Namespace) -> Tuple[Step, int]:
    from reference_style import ReferenceStyle

    style = ReferenceStyle(settings.image_size, ACTIONS, tuple(settings.hidden), settings.samples)
    batch = random_batch(settings.batch_size, settings.image_size)
    step = functools.partial(style.update, **batch)
    return step, parameter_count([style.policy] + style.critics)


def d3rlpy(name: str, settings: argparse.Namespace) -> Tuple[Step, int]:
    """Its CQL; for the case "default" with all its defaults but the batch and the samples."""
    import numpy as np
    from d3rlpy.algos import CQLConfig
    from d3rlpy.dataset import Episode, create_infinite_replay_buffer
    from d3rlpy.models.encoders import PixelEncoderFactory
    from d3rlpy.preprocessing import PixelObservationScaler

    case = cases(settings)[name]
    columns = random_batch(case.batch, settings.image_size)
    episode = Episode(
        np.ascontiguousarray(columns["images"].transpose(0, 3, 1, 2)),
        columns["actions"],
        columns["rewards"][:, None],
        True,
    )
    buffer = create_infinite_replay_buffer([episode])
    more: Dict[str, Any] = {}
    if name != "default":
        filters = [list(layer) for layer in case.filters]
        factory = PixelEncoderFactory(filters=filters, feature_size=case.hidden[0])
        more = {"actor_encoder_factory": factory, "critic_encoder_factory": factory}
    algorithm = CQLConfig(
        batch_size=case.batch,
        n_action_samples=case.samples,
        alpha_learning_rate=0.0,
        observation_scaler=PixelObservationScaler(),
        **more,
    ).create(device="cpu:0")
    algorithm.build_with_dataset(buffer)
    batch = buffer.sample_transition_batch(case.batch)
    modules = algorithm.impl.modules
    step = functools.partial(algorithm.update, batch)
    return step, parameter_count([modules.policy, modules.q_funcs])


def cuda(settings: argparse.Namespace) -> Tuple[Step, int]:
    """Ours as `ofrl train --device cuda` takes it: one graph, data on the device."""
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("not measured: no CUDA device")
    import numpy as np

    from ofrl_robot.data.replay.array_file import ArrayFile
    from ofrl_robot.data.replay.buffer import ReplayBuffer
    from ofrl_robot.data.replay.sampler import MixedSampler
    from ofrl_robot.data.replay.transition_store import TransitionStore
    from ofrl_robot.training.graph import GraphedUpdate
    from ofrl_robot.training.learner import has_bf16, set_up_cuda
    from ofrl_robot.training.resident import ResidentData

    count = 20 * settings.batch_size
    columns = random_batch(count, settings.image_size)
    frames = np.concatenate([columns["images"], columns["next_images"][-1:]])
    device = torch.device("cuda")
    set_up_cuda("auto", device)
    with tempfile.NamedTemporaryFile() as file:
        file.write(frames.tobytes())
        file.flush()
        store = TransitionStore(
            observations={"image": ArrayFile(Path(file.name), frames.shape, mapped=True)},
            actions=columns["actions"],
            rewards=columns["rewards"],
            terminals=columns["terminals"],
            starts=np.array([0, count]),
            first_frames=np.array([0]),
            fingerprint="",
        )
        buffer = ReplayBuffer([store], [1.0], discount=0.99)
        data = ResidentData(buffer, device)
    case = cases(settings)["ours"]
    algorithm = our_algorithm(case, settings.image_size, has_bf16(device), "cuda")
    update = GraphedUpdate(algorithm, data)
    sampler = MixedSampler(buffer, settings.batch_size, seed=0)
    steps = 0

    def step() -> None:
        nonlocal steps
        metrics = update(sampler.draw())
        steps += 1
        if steps % 50 == 0:  # as a run does that logs: waits for the device
            float(metrics["td_error"])

    return step, parameter_count([algorithm.actor, algorithm.critic])


def matmul(settings: argparse.Namespace) -> Callable[[Order], Order]:
    """Answers with GFLOP/s of each precision: the best of several products."""
    import torch

    clock = CLOCKS[settings.clock]
    shapes = ((4096, 1024, 1024), (2048, 2048, 2048), (4096, 4096, 2048))
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}

    def rate(dtype: torch.dtype, rows: int, inner: int, columns: int, seconds: float) -> float:
        a, b = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
        out = torch.empty(rows, columns, dtype=dtype)
        torch.mm(a, b, out=out)
        taken: List[float] = []
        while sum(taken) < seconds:
            start = clock()
            torch.mm(a, b, out=out)
            taken.append(clock() - start)
        return 2e-9 * rows * inner * columns / statistics.median(taken)

    def turn(order: Order) -> Order:
        seconds = order["seconds"] / len(shapes)
        return {
            name: max(rate(dtype, *shape, seconds) for shape in shapes)
            for name, dtype in dtypes.items()
        }

    return turn


STEPS: Dict[str, Callable[[argparse.Namespace], Tuple[Step, int]]] = {
    "reference": reference,
    "d3rlpy": functools.partial(d3rlpy, "small"),
    "d3rlpy_default": functools.partial(d3rlpy, "default"),
    "cuda": cuda,
    **{
        f"{name}_{precision}": functools.partial(ours, name, precision == "bf16")
        for name in ("ours", "small", "default")
        for precision in PRECISIONS
    },
}


def prepare(side: str, settings: argparse.Namespace) -> Callable[[Order], Order]:
    """The function that answers ``{"seconds": s}`` with the seconds of a step in s seconds."""
    import torch

    from ofrl_robot.training.allocator import keep_freed_memory

    kept = settings.allocator == "kept" and keep_freed_memory()
    allocator = "freed memory kept" if kept else "the system's"
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    if side == "matmul":
        answer = matmul(settings)
        return lambda order: {**answer(order), "allocator": allocator}
    step, parameters = STEPS[side](settings)
    clock = CLOCKS[settings.clock]

    def turn(order: Order) -> Order:
        count, start, begin = 0, clock(), time.perf_counter()
        while count == 0 or time.perf_counter() - begin < order["seconds"]:
            step()
            count += 1
        seconds = (clock() - start) / count
        return {"step_s": seconds, "parameters": parameters, "allocator": allocator}

    return turn
