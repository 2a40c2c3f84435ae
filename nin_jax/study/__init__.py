"""The exercise answered by measurement: a grid of runs, their results, and a page."""
