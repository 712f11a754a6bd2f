"""Networks: encoders of observations, actor, critic ensemble. No losses, no optimisers."""
