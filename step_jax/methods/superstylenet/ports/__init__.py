"""SuperStyleNet's networks and step in PyTorch, to measure against; nothing else imports them."""
