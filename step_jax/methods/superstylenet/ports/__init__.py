"""SuperStyleNet's networks and step in PyTorch, imported only by benchmarks."""
