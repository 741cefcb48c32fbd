"""The demo page of StEP."""
