"""Labels from CSV: everything or nothing, to the bit and back."""

import shutil

import h5py
import numpy as np
import pytest

from ofrl_robot.cli import main
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.datasets.labels import export_csv, label_from_csv
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.schema import FAILURE, SUCCESS, UNKNOWN
from ofrl_robot.data.verify.dataset_check import verify_dataset
from ofrl_robot.data.verify.thresholds import QualityLimits
from ofrl_robot.errors import DatasetError, OutputError

GROUP = "data/demo_0"
STEPS = 5


@pytest.fixture
def dataset(tmp_path, make):
    """Four episodes, all labelled success by "test"."""
    for seed in range(4):
        make.episode(tmp_path / "data", steps=STEPS, seed=seed)
    return tmp_path / "data"


def csv_of(tmp_path, *lines, header="episode,success,step,reward"):
    path = tmp_path / "labels.csv"
    path.write_text("\n".join((header, *lines)) + "\n")
    return path


def labels_of(folder):
    return [(m.success, m.label_source) for m in open_dataset(folder).metas]


def rewards_of(folder, index, name="rewards"):
    with h5py.File(str(open_dataset(folder).paths[index]), "r") as file:
        return file[GROUP][name][:].tolist()


def test_labels_and_who_gave_them(dataset, tmp_path, capsys):
    file = csv_of(tmp_path, "0,0", "episode_000002.h5,unknown", "3,1", header="episode,success")
    untouched = (dataset / "episode_000001.h5").read_bytes()
    assert main(["data", "label", str(dataset), "--csv", str(file)]) == 0
    assert "2 episodes changed" in capsys.readouterr().out
    assert labels_of(dataset) == [
        (FAILURE, "csv:labels.csv"),
        (SUCCESS, "test"),
        (UNKNOWN, "csv:labels.csv"),
        (SUCCESS, "test"),  # was so already
    ]
    assert open_dataset(dataset).successes == 2
    assert (dataset / "episode_000001.h5").read_bytes() == untouched


@pytest.mark.slow
def test_rewards_keep_the_first_ones(dataset, tmp_path):
    before = rewards_of(dataset, 0)
    label_from_csv(dataset, csv_of(tmp_path, "0,0,,", "0,,2,-0.1", "0,,4,0", "1,,0,1"))
    label_from_csv(dataset, csv_of(tmp_path, "0,,1,0.30000000000000004"))
    assert rewards_of(dataset, 0) == [0.0, 0.30000000000000004, -0.1, 0.0, 0.0]
    assert rewards_of(dataset, 0, "rewards_original") == before
    assert labels_of(dataset)[:2] == [(FAILURE, "csv:labels.csv"), (SUCCESS, "test")]
    with h5py.File(str(dataset / "episode_000000.h5"), "r") as file:
        assert file[GROUP].attrs["reward_source"] == "csv:labels.csv"
        assert file[GROUP + "/rewards_original"].dtype == np.float64
    assert verify_dataset(dataset, QualityLimits()).findings == []


@pytest.mark.slow
def test_round_trip_is_exact(dataset, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(str(dataset), str(copy))
    label_from_csv(dataset, csv_of(tmp_path, "0,0", "2,unknown", header="episode,success"))
    label_from_csv(dataset, csv_of(tmp_path, f"1,,3,{1 / 3!r}", "1,,4,1e-300"))
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    assert main(["data", "label", str(dataset), "--export", str(first)]) == 0
    label_from_csv(copy, first)
    export_csv(copy, second)
    assert first.read_bytes() == second.read_bytes()
    assert [s for s, _ in labels_of(copy)] == [s for s, _ in labels_of(dataset)]
    assert all(rewards_of(copy, k) == rewards_of(dataset, k) for k in range(4))
    assert label_from_csv(dataset, first) == []  # says nothing new
    with pytest.raises(OutputError, match="exists already"):
        export_csv(copy, second)


BAD = {
    "unknown number": (["0,0,,", "9,1,,"], "line 3: no episode '9'"),
    "unknown name": (["0,0,,", "episode_9.h5,1,,"], "line 3: no episode 'episode_9.h5'"),
    "twice": (["0,0,,", "episode_000000.h5,0,,"], "line 3: episode 'episode_000000.h5' is lab"),
    "label 2": (["0,0,,", "1,2,,"], "line 3: success of episode '1' is '2'"),
    "label yes": (["1,yes,,"], "line 2: success of episode '1' is 'yes'"),
    "label -1": (["1,-1,,"], "line 2: success of episode '1' is '-1'"),
    "no label": (["0,0,,", "", "1,,,"], "line 4: episode '1' needs either"),
    "both": (["1,1,0,1"], "line 2: episode '1' needs either"),
    "no reward": (["1,,0,"], "line 2: episode '1' needs either"),
    "step 5": (["1,,5,1"], "line 2: episode '1' has steps 0 to 4, not 5"),
    "step -1": (["1,,-1,1"], "line 2: episode '1' has steps 0 to 4, not -1"),
    "step 1.5": (["1,,1.5,1"], "line 2: step '1.5', reward '1' of episode '1'"),
    "step twice": (["1,,1,1", "1,,1,1"], "line 3: step 1 of episode '1' occurs twice"),
    "reward nan": (["1,,1,nan"], "line 2: reward nan of episode '1'"),
    "too few values": (["1,1"], "line 2: 2 values in 4 columns"),
    "open quote": (['0,0,,', '"1,1,,'], "line 3: unexpected end of data"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_one_bad_line_is_named_and_nothing_changes(dataset, tmp_path, state_of, fault, capsys):
    lines, text = BAD[fault]
    file = csv_of(tmp_path, *lines)
    before = state_of(dataset)
    assert main(["data", "label", str(dataset), "--csv", str(file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"ofrl: {file}: {text}") and error.count("\n") == 1
    assert state_of(dataset) == before


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"episode;success\n0;1\n", "line 1: column 'episode;success'"),
        (b"episode,note,success\n", "line 1: column 'note'"),
        (b"episode\n0\n", "line 1: no column 'success'"),
        (b"", "is empty"),
        (b"\xff\xfe\x00", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_files_that_are_no_label_files(dataset, tmp_path, content, text):
    file = tmp_path / "labels.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DatasetError, match=text):
        label_from_csv(dataset, file)


def test_files_of_spreadsheets_are_read(dataset, tmp_path):
    file = tmp_path / "labels.csv"
    file.write_bytes(b"\xef\xbb\xbfsuccess,episode\r\n 0 ,0\r\n,\r\n")
    assert label_from_csv(dataset, file) == ["episode_000000.h5"]


def test_refused_while_a_recorder_is_at_work(dataset, tmp_path, capsys):
    file = csv_of(tmp_path, "0,0,,")
    with one_writer(dataset), pytest.raises(DatasetError, match="another recorder"):
        label_from_csv(dataset, file)
    with pytest.raises(DatasetError, match="no such dataset folder"):
        label_from_csv(tmp_path / "none", file)
    assert not (tmp_path / "none").exists()
    assert main(["data", "label", str(dataset)]) == 2
    assert "--csv FILE or --export FILE" in capsys.readouterr().err
    assert read_episode(dataset / "episode_000000.h5").meta.success == SUCCESS
