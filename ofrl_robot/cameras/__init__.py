"""Cameras: where frames come from, when they were captured, and whether they can be trusted."""
