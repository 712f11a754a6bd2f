"""Recording sessions: the loop in one process, alone or in parallel."""
