#!/usr/bin/env bash
# Installs what the benchmarks compare with into .bench-venv, which sees .venv's packages, torch
# among them, and adds its own. Called by `make bench`; where it fails, the benchmarks go on and
# say what was not measured.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=.bench-venv
STAMP=$VENV/peers.stamp
PINNED=(d3rlpy==2.8.1)
# robomimic's own list asks for torchvision, renderers and tensorboardX, which its loader never uses
BARE=(robomimic==0.3.0 termcolor==2.4.0 psutil==5.9.8)
export PYTHONNOUSERSITE=1

stamp=$(sha256sum <"bench/peers.sh")
[ "$(cat "$STAMP" 2>/dev/null)" != "$stamp" ] || exit 0

install_peers() {
    rm -rf "$VENV"
    .venv/bin/python -m venv --system-site-packages "$VENV" || return 1 # as .venv is made
    touch "$VENV/CATKIN_IGNORE"
    .venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
        >"$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ofrl.pth"
    # as it is: another build of torch would bring gigabytes
    "$VENV/bin/python" -c 'import torch; print("torch==" + torch.__version__)' \
        >"$VENV/constraints.txt" || return 1
    local pip=("$VENV/bin/python" -m pip install -q --disable-pip-version-check --no-input)
    "${pip[@]}" --constraint "$VENV/constraints.txt" "${PINNED[@]}" &&
        "${pip[@]}" --no-deps "${BARE[@]}"
}

log=$(mktemp)
if install_peers >"$log" 2>&1; then
    echo "$stamp" >"$STAMP"
    echo "bench: installed ${PINNED[*]} ${BARE[0]} in $VENV"
else
    tail -n 3 "$log" >&2
    echo "bench: could not install ${PINNED[*]} ${BARE[0]}; going on without" >&2
fi
rm -f "$log"
