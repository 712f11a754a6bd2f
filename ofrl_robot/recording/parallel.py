"""The loop in several processes: the same episodes, in the same files, as in one.

Numbers are given out by the parent and number i has seed ``first_seed + i``, so it does not
matter which process records which episode. Each process has a robot of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from ofrl_robot.control.protocols import ActionSource
from ofrl_robot.control.rig import Rig
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.numbering import partial_path
from ofrl_robot.data.episodes.schema import EpisodeMeta
from ofrl_robot.data.episodes.writer import prepare_folder
from ofrl_robot.errors import OfrlError, RobotError
from ofrl_robot.processes import END_TIMEOUT, exit_text, interrupt_postponed
from ofrl_robot.recording.session import Session

MakeRig = Callable[[], Tuple[Rig, ActionSource]]


def record_parallel(
    make: MakeRig,
    workers: int,
    folder: Path,
    count: int,
    first_seed: int,
    meta: EpisodeMeta,
    on_episode: Optional[Callable[[int, int], None]] = None,
    mixed_tasks: bool = False,
) -> None:
    """Record like :func:`~ofrl_robot.recording.session.record_episodes`, in several processes.

    Episodes finish in any order. However it ends, Ctrl-C included: finished episodes stay,
    running ones are dropped and no process is left. A number that was dropped below a finished
    one is not used again. Call it from the main thread.

    Args:
        make: builds rig and action source, in each process; must be picklable.
        workers: number of processes.
        on_episode: called with (episodes saved so far, label of the last) after each.
        mixed_tasks: allow a folder that holds episodes of another task or robot.

    Raises:
        OfrlError: as it was raised in one of the processes.
        RobotError: a process died, or failed otherwise; the message names the episode.
        DatasetError: another recorder is at work in ``folder``.
    """
    team: List[_Worker] = []
    with one_writer(folder):
        first = prepare_folder(folder, meta, mixed_tasks)
        numbers = range(first, first + count)
        try:
            with interrupt_postponed():
                for number in numbers[:workers]:
                    team.append(_start(number, make, folder, first_seed, meta))
            for done, label in enumerate(_labels(team, numbers[workers:]), 1):
                if on_episode is not None:
                    on_episode(done, label)
        finally:
            with interrupt_postponed():
                _end(team, folder)


@dataclasses.dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    number: Optional[int]  # of the episode it records, None when it has no work


def _start(number: int, *args: Any) -> _Worker:
    # Not forked: a copy of the parent's engine, HDF5 state and threads would not work.
    context = multiprocessing.get_context("spawn")
    pipe, far_end = context.Pipe()
    pipe.send(number)
    process = context.Process(target=_work, args=(far_end, *args), daemon=True)
    process.start()
    far_end.close()  # or the end of the process would not close the pipe
    return _Worker(process, pipe, number)


def _labels(team: Sequence[_Worker], numbers: Sequence[int]) -> Iterator[int]:
    """Yield the labels of the episodes as they finish, while ``numbers`` are given out."""
    waiting = iter(numbers)
    busy: Dict[object, _Worker] = {worker.pipe: worker for worker in team}
    while busy:
        for pipe in wait([worker.pipe for worker in busy.values()]):
            worker = busy[pipe]
            yield _label(worker)
            worker.number = next(waiting, None)
            if worker.number is None:
                del busy[pipe]
            else:
                with contextlib.suppress(BrokenPipeError):  # it died: its pipe will say so
                    worker.pipe.send(worker.number)


def _label(worker: _Worker) -> int:
    """Return the label that a worker answers with; raise its error."""
    where = f"episode {worker.number}"
    kept = "finished episodes are kept; run it again to go on"
    try:
        answer = worker.pipe.recv()
    except (EOFError, OSError) as error:
        worker.process.join(END_TIMEOUT)
        raise RobotError(
            f"the process that recorded it died ({exit_text(worker.process)})", kept, where
        ) from error
    if isinstance(answer, OfrlError):
        raise answer
    if isinstance(answer, str):
        raise RobotError(answer, kept, where)
    return answer


def _end(team: Sequence[_Worker], folder: Path) -> None:
    """End all processes; drop what the busy ones have not finished."""
    for worker in team:
        worker.pipe.close()  # tells those without work to end
        if worker.number is not None:
            worker.process.kill()
    for worker in team:
        worker.process.join(END_TIMEOUT)
        worker.process.kill()
        worker.process.join()
        if worker.number is not None:
            with contextlib.suppress(FileNotFoundError):
                partial_path(folder, worker.number).unlink()


def _work(
    pipe: Connection, make: MakeRig, folder: Path, first_seed: int, meta: EpisodeMeta
) -> None:
    """Record the numbers that come through ``pipe`` until it is closed (in a process).

    Answers each with a label, an OfrlError, or the text of another error; ends after an error.
    """
    rig: Optional[Rig] = None
    try:
        rig, actor = make()
        session = Session(rig, actor)
        for number in _numbers(pipe):
            pipe.send(session.record(folder, number, first_seed, meta))
    except BrokenPipeError:
        pass  # the parent is gone
    except OfrlError as error:
        pipe.send(error)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
    finally:
        if rig is not None:
            rig.close()


def _numbers(pipe: Connection) -> Iterator[int]:
    while True:
        try:
            yield pipe.recv()
        except EOFError:
            return
