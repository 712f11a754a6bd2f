"""Arms: the table of names, their limits, the simulated one. The protocol is ``control.Arm``."""
