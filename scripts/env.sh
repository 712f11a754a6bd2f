# Source this in bash:  . scripts/env.sh && roslaunch ofrl_robot collect.launch
# It activates .venv and makes this clone findable as the ROS package ofrl_robot, whatever the
# folder is called. No catkin workspace is needed. If a vendor's workspace is needed too, source
# that first: its setup.bash sets ROS_PACKAGE_PATH anew.

_ofrl_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [ ! -f "$_ofrl_root/.venv/bin/activate" ]; then
    echo "scripts/env.sh: no .venv in $_ofrl_root; run 'make setup' there first" >&2
    unset _ofrl_root
    return 1
fi

# Noetic lives under /opt; Debian's own ROS is in /usr and needs nothing sourced.
if [ -f /opt/ros/noetic/setup.bash ] && [ -z "${ROS_DISTRO:-}" ]; then
    . /opt/ros/noetic/setup.bash
fi

# After ROS, so that `env python3` in the nodes' first lines is the venv's.
. "$_ofrl_root/.venv/bin/activate"

# The clone itself, not its parent: a parent may be large, or hold another copy of the package.
case ":${ROS_PACKAGE_PATH:-}:" in
    *":$_ofrl_root:"*) ;;
    *) export ROS_PACKAGE_PATH="$_ofrl_root${ROS_PACKAGE_PATH:+:$ROS_PACKAGE_PATH}" ;;
esac
unset _ofrl_root
