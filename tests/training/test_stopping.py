"""SIGTERM, which a scheduler sends: the step is finished, saved, and the run goes on to the bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ofrl_robot.cli import main
from ofrl_robot.training import run_folder
from ofrl_robot.training.stopping import stop_on_sigterm

FLAGS = ["--algo", "bc", "--steps", "300", "--checkpoint-every", "200", "--log-every", "5",
         "--batch-size", "4", "--probe-size", "8", "--threads", "1", "--precision", "fp32",
         "--latent", "8", "--hidden", "16"]  # fmt: skip


def begin(data, out):
    words = [sys.executable, "-m", "ofrl_robot.cli", "train", str(data), "--out", str(out)]
    return subprocess.Popen([*words, "--name", "run", *FLAGS], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.timeout(300)  # processes that import torch, on whatever machine
def test_sigterm_saves_the_run_and_resume_continues_it_to_the_bit(make_dataset, tmp_path, capsys):
    data = make_dataset()
    process = begin(data, tmp_path / "stopped")
    losses = tmp_path / "stopped" / "run" / "train.csv"
    while process.poll() is None and not (losses.is_file() and losses.stat().st_size > 100):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode == 143, output
    run = tmp_path / "stopped" / "run"
    (step,) = run_folder.checkpoint_steps(run)
    assert output.splitlines()[0] == f"training bc on {data} for 300 steps"
    assert f"stopped by SIGTERM after step {step}; continue with: ofrl train --resume" in output
    assert "run:" not in output and step < 200

    assert main(["train", "--resume", str(run)]) == 0  # all settings come from the run
    assert f"resumed after step {step}" in capsys.readouterr().out
    assert begin(data, tmp_path / "whole").wait() == 0
    whole = tmp_path / "whole" / "run"
    assert run_folder.checkpoint_steps(run) == [step, 200, 300]
    for kept in (200, 300):
        path = run_folder.checkpoint_path(run, kept)
        assert path.read_bytes() == run_folder.checkpoint_path(whole, kept).read_bytes()
    for name in ("train.csv", "config.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


def test_the_handler_lasts_as_long_as_the_training():
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_sigterm() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
    assert signal.getsignal(signal.SIGTERM) == before


def test_outside_the_main_thread_signals_are_left_alone():
    seen = []

    def run():
        with stop_on_sigterm() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]
