"""Sweeps: many runs of one recipe, here or on a Ray cluster."""
