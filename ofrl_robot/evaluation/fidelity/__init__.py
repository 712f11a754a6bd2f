"""How well the embedded simulator agrees with recorded roboverse episodes."""
