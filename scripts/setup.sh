#!/usr/bin/env bash
# Installs what is missing and nothing else: ROS from apt, Python libraries into .venv.
# Called by `make setup`; safe to run again at any time.
#   OFRL_SKIP_APT=1   leave the system's packages alone
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=.venv
LOG=$VENV/setup.log
STAMP=$VENV/setup.stamp
CPU_INDEX=https://download.pytorch.org/whl/cpu
# Debian's own ROS 1: the master, roslaunch and the command-line tools (ros-base), rosrun (rosbash,
# which ros-base lacks), message classes, and what catkin_make needs.
DEBIAN_PACKAGES=(
    ros-base rosbash python3-rospy python3-roslaunch python3-rosbag
    python3-std-msgs python3-sensor-msgs python3-geometry-msgs python3-std-srvs
    python3-diagnostic-msgs python3-tf2-msgs
    catkin cmake make g++ git python3-venv
)
NOETIC_PACKAGES=(python3-venv git) # the rest is in /opt/ros/noetic

# Packages in ~/.local must not count as installed: the next user does not have them.
export PYTHONNOUSERSITE=1

say() { printf 'setup: %s\n' "$*"; }
die() {
    printf 'setup: error: %s\n' "$*" >&2
    exit 1
}
# phase TEXT COMMAND...: one line with the seconds; the output goes to a log, shown if it fails.
phase() {
    local text=$1 start=$SECONDS log
    shift
    log=$(mktemp)
    if "$@" >"$log" 2>&1; then
        [ ! -d "$VENV" ] || cat "$log" >>"$LOG"
        rm -f "$log"
        say "$text ($((SECONDS - start)) s)"
    else
        tail -n 5 "$log" >&2
        rm -f "$log"
        return 1
    fi
}

# ---- apt ----------------------------------------------------------------------------------------
missing_packages() { # names of the packages in "$@" that are not installed
    local installed
    installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true)
    for package in "$@"; do
        grep -qxF "$package installed" <<<"$installed" || echo "$package"
    done
}

apt_install() { # with root's rights, or the given sudo
    local get=(apt-get -y -q -o DPkg::Lock::Timeout=120)
    "${SUDO[@]}" env DEBIAN_FRONTEND=noninteractive "${get[@]}" update &&
        "${SUDO[@]}" env DEBIAN_FRONTEND=noninteractive "${get[@]}" \
            install --no-install-recommends "$@"
}

NO_ROS=""
install_system() {
    local wanted missing
    if [ -f /opt/ros/noetic/setup.bash ]; then
        say "using ROS Noetic in /opt/ros/noetic"
        wanted=("${NOETIC_PACKAGES[@]}")
    else
        wanted=("${DEBIAN_PACKAGES[@]}")
    fi
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        NO_ROS="this system has no apt; needed: ${wanted[*]}"
        return
    fi
    mapfile -t missing < <(missing_packages "${wanted[@]}")
    [ ${#missing[@]} -gt 0 ] || return 0

    if [ -n "${OFRL_SKIP_APT:-}" ]; then
        NO_ROS="OFRL_SKIP_APT is set; missing: ${missing[*]}"
    elif [ "$(id -u)" = 0 ]; then
        SUDO=()
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        SUDO=(sudo -n)
    else
        NO_ROS="not root; install with: sudo apt-get install --no-install-recommends ${missing[*]}"
    fi
    [ -z "$NO_ROS" ] || return 0
    phase "installed ${#missing[@]} apt packages" apt_install "${missing[@]}" ||
        die "apt could not install: ${missing[*]} (OFRL_SKIP_APT=1 goes on without ROS)"
}

# ---- venv ---------------------------------------------------------------------------------------
# Usable: complete, made by /usr/bin/python3 of today's version, sees the system's packages (rospy),
# and made for this folder (scripts in a venv hold its absolute path, so a moved clone is rebuilt).
venv_usable() {
    [ -f "$VENV/bin/activate" ] && [ -x "$VENV/bin/pip" ] &&
        grep -qx 'home = /usr/bin' "$VENV/pyvenv.cfg" &&
        grep -qx 'include-system-site-packages = true' "$VENV/pyvenv.cfg" &&
        grep -qF "$PWD/$VENV" "$VENV/bin/activate" &&
        "$VENV/bin/python" -c 'import pip, sys; sys.exit(not pip.__file__.startswith(sys.prefix))'
}

# /usr/bin/python3 by name: the python3 on PATH may be a version manager's, which cannot see rospy.
make_venv() {
    rm -rf "$VENV"
    /usr/bin/python3 -m venv --system-site-packages "$VENV"
}

# A pip older than 21.3 (Ubuntu 20.04) knows no editable install through pyproject.toml.
modern_pip() {
    "$VENV/bin/python" -c 'import pip, sys
sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (21, 3))'
}

in_venv() { compgen -G "$VENV/lib/python3*/site-packages/$1-*.dist-info/RECORD" >/dev/null; }
pip() { "$VENV/bin/python" -m pip "$@" --disable-pip-version-check --no-input; }

# ---- torch --------------------------------------------------------------------------------------
# First, and on its own: on a machine without a GPU, torch as a dependency of something else would
# bring gigabytes of CUDA wheels. --no-deps, as its small dependencies come with the project.
torch_offered() { pip install --no-index --no-deps torch; } # by the user's own pip find-links
# The variable is there to overrule an extra index in pip's configuration: its CUDA build may win.
torch_cpu() { PIP_EXTRA_INDEX_URL=$CPU_INDEX pip install --no-deps --index-url "$CPU_INDEX" torch; }
torch_cuda() { pip install torch; }

install_torch() {
    if nvidia-smi -L >/dev/null 2>&1; then
        phase "installed torch for CUDA" torch_cuda || die "pip could not install torch"
    elif ! phase "installed torch from pip's find-links" torch_offered 2>/dev/null; then
        phase "installed torch, CPU build" torch_cpu ||
            die "no CPU build of torch from $CPU_INDEX; install one with .venv/bin/pip, run again"
    fi
}

# ---- the project --------------------------------------------------------------------------------
# What links against numpy must be the venv's own: the system's copies, visible from here and good
# enough for pip, were built for the system's older numpy and do not load beside numpy 2.
NUMPY_FAMILY=(numpy h5py scipy matplotlib)

install_project() {
    local own=()
    for name in "${NUMPY_FAMILY[@]}"; do in_venv "$name" || own+=("$name"); done
    if [ ${#own[@]} -gt 0 ]; then
        phase "installed ${own[*]}" pip install --ignore-installed "${own[@]}" ||
            die "pip could not install ${own[*]}"
    fi
    phase "installed ofrl_robot and its libraries" pip install -e '.[dev]' ||
        die "pip could not install the libraries named in setup.py"
}

# ---- main ---------------------------------------------------------------------------------------
install_system
if ! venv_usable 2>/dev/null; then
    phase "made .venv" make_venv || die "could not make .venv${NO_ROS:+ ($NO_ROS)}"
    # Nothing in here is a ROS package; keeps catkin out.
    touch "$VENV/CATKIN_IGNORE"
    modern_pip || phase "updated pip" pip install -U pip || die "pip could not update itself"
fi
in_venv torch || install_torch
stamp=$(cat setup.py setup.cfg scripts/setup.sh | sha256sum)
if [ "$(cat "$STAMP" 2>/dev/null)" != "$stamp" ]; then
    install_project
    echo "$stamp" >"$STAMP"
fi

if [ -n "$NO_ROS" ]; then
    say "WARNING: the ROS parts (roslaunch, make demo, tests/ros) will not run: $NO_ROS" >&2
fi
say "ready"
