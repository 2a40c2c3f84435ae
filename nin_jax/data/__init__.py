"""Datasets on the host: found, downloaded, checked, read; and images on the device."""
