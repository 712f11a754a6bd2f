"""Offline RL algorithms: a public config each, small classes over shared parts."""
