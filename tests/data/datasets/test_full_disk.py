"""A full disk during an edit: right advice, nothing half-written, no lock file left."""

import resource
import subprocess
import sys

import pytest

COMMAND = "import sys; from ofrl_robot.cli import main; sys.exit(main(sys.argv[1:]))"
JOBS = {
    "label": ["data", "label", "{folder}", "--csv", "{csv}"],
    "split": ["data", "split", "{folder}", "--valid", "0.5"],
    "trim": ["data", "trim", "{folder}", "--idle", "2", "--still", "inf", "--yes"],
    "delete": ["data", "delete", "{folder}", "0", "--purge", "--yes"],
}


def no_more_bytes():
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def run_with_full_disk(job, folder, csv):
    words = [word.format(folder=folder, csv=csv) for word in JOBS[job]]
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *words],
        capture_output=True,
        text=True,
        preexec_fn=no_more_bytes,
    )


@pytest.fixture
def dataset(tmp_path, make):
    for seed in range(4):
        make.episode(tmp_path / "data", 9, seed=seed)
    (tmp_path / "labels.csv").write_text("episode,success\n0,0\n1,0\n")
    return tmp_path / "data"


@pytest.mark.slow
@pytest.mark.parametrize("job", ["label", "split", "trim"])
def test_an_edit_on_a_full_disk_changes_nothing_and_says_what_to_do(
    dataset, tmp_path, state_of, job
):
    before = state_of(dataset)
    result = run_with_full_disk(job, dataset, tmp_path / "labels.csv")
    assert result.returncode == 2, result.stderr
    assert "free space" in result.stderr and len(result.stderr.splitlines()) == 1
    assert state_of(dataset) == before


@pytest.mark.slow
def test_episodes_can_be_deleted_from_a_full_disk(dataset, tmp_path):
    result = run_with_full_disk("delete", dataset, tmp_path / "labels.csv")
    assert result.returncode == 0, result.stderr
    assert [path.name[-4:] for path in sorted(dataset.iterdir())] == ["1.h5", "2.h5", "3.h5"]
