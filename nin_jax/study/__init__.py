"""The exercise answered by measurement: a grid of runs, its results, and a page about them."""
