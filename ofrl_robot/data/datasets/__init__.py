"""Folders of episodes: opening, splits, edits, labels, merging, summaries."""
