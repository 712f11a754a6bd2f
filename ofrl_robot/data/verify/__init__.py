"""Checks of episode files and datasets, and the report on them."""
