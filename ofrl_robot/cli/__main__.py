"""Run ``python -m ofrl_robot.cli`` as ``ofrl``."""

import sys

from ofrl_robot.cli import main

if __name__ == "__main__":  # worker processes import this file, too
    sys.exit(main())
