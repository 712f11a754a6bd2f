"""What is wrong with episodes and datasets, and how bad it is."""
