"""The demo page of SuperStyleNet."""
