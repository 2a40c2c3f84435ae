"""Find what on this machine would prevent or disturb a run, and say what to do about it."""
