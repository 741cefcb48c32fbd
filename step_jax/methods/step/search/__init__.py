"""Exact search for nearest and farthest neighbours on the device."""
