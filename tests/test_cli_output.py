"""What the command line prints, where it goes, and how it ends; as a user's shell sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

OFRL = (sys.executable, "-m", "ofrl_robot.cli")


def run(*words, **options):
    options.setdefault("stdout", subprocess.PIPE)
    return subprocess.run(
        [*OFRL, *map(str, words)], stderr=subprocess.PIPE, text=True, timeout=100, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("words", [["info"], ["--help"], ["data", "info", "DATA"]])
def test_output_that_cannot_be_written_is_one_line_and_exit_code_2(make_dataset, words):
    words = [make_dataset() if word == "DATA" else word for word in words]
    with open("/dev/full", "w") as full:
        done = run(*words, stdout=full)
    assert done.returncode == 2
    assert done.stderr == (
        "ofrl: standard output cannot be written (No space left on device); "
        "free space or redirect it to another file\n"
    )


@pytest.mark.slow
def test_closed_output_is_one_line_and_exit_code_2():
    done = subprocess.run(
        ["sh", "-c", '"$0" -m ofrl_robot.cli info >&-', sys.executable],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "ofrl: standard output is closed; redirect it, for example to /dev/null\n"
    )


@pytest.mark.slow
def test_a_reader_that_has_gone_is_no_error_message():
    read, write = os.pipe()
    os.close(read)
    try:
        done = run("info", stdout=write)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.slow
def test_a_message_that_cannot_be_written_keeps_its_exit_code():
    with open("/dev/full", "w") as full:
        done = subprocess.run([*OFRL, "diagnose", "none"], stderr=full)
    assert done.returncode == 2


@pytest.mark.parametrize("module", ["tyro", "numpy"])
def test_ctrl_c_while_it_starts_is_quiet(tmp_path, module):
    """The import of a library is where it spends its first 0.3 s: Ctrl-C comes in there."""
    (tmp_path / f"{module}.py").write_text(
        "import os, signal\n"
        "class Raiser:\n"
        "    def __del__(self):\n"  # where Python prints a KeyboardInterrupt and goes on
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        for _ in range(1000): pass\n"
        "Raiser()\n"
        "raise SystemExit('not interrupted')\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = run("data", "info", "none", env=dict(os.environ, PYTHONPATH=path))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "ofrl: interrupted\n")


@pytest.mark.slow
def test_whoever_ignores_ctrl_c_goes_on_ignoring_it():
    done = run("--help", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert done.returncode == 0 and done.stderr == ""


@pytest.mark.slow
def test_escape_sequences_of_files_do_not_reach_the_terminal(tmp_path):
    name = "run\x1b]0;title\x07\x1b[31m\n\udcff"
    folder = os.fsencode(tmp_path / name)
    os.mkdir(folder)
    for words in (["diagnose"], ["data", "info"]):
        done = subprocess.run([*OFRL, *words, folder], capture_output=True)
        assert done.returncode == 2
        assert b"\x1b" not in done.stderr and b"run\\x1b]0;title\\x07" in done.stderr
        assert done.stderr.count(b"\n") == 1


def test_what_a_verb_prints_is_escaped_but_not_its_progress_bars(capsys):
    from rich.console import Console

    from ofrl_robot.cli.output import checked_output, escaped_output

    with checked_output(), escaped_output():
        print("a\x1b[31mb\tc \udcff é")
        Console(force_terminal=True, color_system="standard").print("[red]bar")
    out = capsys.readouterr().out
    assert out.startswith("a\\x1b[31mb\tc \\udcff é\n")
    assert "\x1b[31mbar" in out


def test_a_bar_on_a_terminal_keeps_its_escape_sequences(capsys):
    from rich.console import Console
    from rich.progress import Progress

    from ofrl_robot.cli.output import checked_output, escaped_output

    with checked_output(), escaped_output():
        with Progress(console=Console(force_terminal=True)) as bar:
            bar.add_task("work", total=1)
            print("line\x1b]0;title\x07")
    out = capsys.readouterr().out
    assert "\x1b[" in out and "\\x1b" not in out and "\x1b]0;title" not in out
