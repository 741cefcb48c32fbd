"""StEP's networks and steps in PyTorch, imported only by benchmarks."""
