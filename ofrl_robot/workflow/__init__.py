"""Reads what training wrote: diagnosis, checkpoint selection, report. Runs no robot."""
