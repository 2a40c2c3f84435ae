"""Runs disturbed on purpose, many times over: nothing may be lost, nothing wrong may be loaded."""
