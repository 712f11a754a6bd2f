"""The deployed policy: the checkpoint file, and observation -> action. No optimiser."""
