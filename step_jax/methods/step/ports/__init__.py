"""StEP's networks and steps in PyTorch, to measure against; nothing else imports them."""
