"""What is deployed: the checkpoint artefact and observation -> action. Knows no optimiser."""
