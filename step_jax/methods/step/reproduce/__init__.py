"""Tables of the StEP paper."""
