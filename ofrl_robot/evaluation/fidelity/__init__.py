"""Agreement of the embedded simulator with recorded roboverse episodes."""
