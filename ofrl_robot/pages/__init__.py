"""Reports and pages: HTML, plots, film strips, clips."""
