"""Whole folders of episodes: splits, edits, labels, merging, summaries."""
