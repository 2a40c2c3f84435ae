"""What scripts/report.py does: accounts of networks, measured too, printed and drawn."""
