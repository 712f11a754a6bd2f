"""Networks: image encoders, tanh-Gaussian actor, critic ensemble. No losses, no optimisers."""
