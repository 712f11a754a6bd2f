"""Offline RL algorithms: one settings class and one class each, over shared parts."""
