"""Sweeps: many runs of one recipe, on this computer or on a Ray cluster."""
