"""Offline RL for robot arms: collect, train, diagnose, deploy. Imports no ROS."""

__version__ = "0.1.0"
