"""Datasets: find, download, verify and read them on the host; transform images on the device."""
