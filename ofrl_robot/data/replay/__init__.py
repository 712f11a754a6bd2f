"""The replay buffer: transitions of whole datasets, ready to be sampled."""
