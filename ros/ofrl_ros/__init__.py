"""What the nodes share: parameters, messages, the actor loop, bags."""
