"""Success rates of trials, and how faithful the simulator is to recordings."""
