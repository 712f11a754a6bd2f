"""HTML pages about runs and datasets, film strips, clips, and the label page."""
