"""Runs that are disturbed on purpose: no data may be lost, no damaged checkpoint loaded."""
