"""Exact nearest and farthest neighbors, on the device."""
