"""Robot backends behind one protocol, actors, and the loop that runs them in one process."""
