#!/usr/bin/env bash
# Run all tests that need neither torch nor ROS under a real Python 3.8, which Noetic users have.
# Looks for python3.8 on PATH; PYTHON38=PATH names another. Makes .venv38 once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=.venv38
python=${PYTHON38:-python3.8}
if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 8))' 2>/dev/null; then
    echo "test-py38: $python is not a Python 3.8; install one, or name it: PYTHON38=PATH make test-py38" >&2
    exit 2
fi
if [ ! -f "$VENV/done" ]; then
    rm -rf "$VENV"
    "$python" -m venv "$VENV"
    # setup.py's list without torch and what only training and pages need
    "$VENV/bin/python" -m pip install -q numpy h5py scipy opencv-python-headless PyYAML gymnasium \
        pybullet tyro typing_extensions rich safetensors pillow jinja2 matplotlib \
        pytest pytest-timeout hypothesis
    touch "$VENV/done"
fi
export PYTHONPATH=$PWD:$PWD/ros
exec "$VENV/bin/python" -m pytest -q -p no:cacheprovider tests/test_specs.py tests/test_registry.py \
    tests/test_files.py tests/control tests/robots tests/cameras tests/sim tests/recording \
    tests/data/episodes tests/data/datasets tests/data/verify tests/data/convert \
    tests/evaluation/fidelity "$@"
