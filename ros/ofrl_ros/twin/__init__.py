"""Twins: simulated arms behind the vendors' own topics and services, for rehearsals."""
