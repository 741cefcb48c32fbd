"""PyTorch ports for comparison; imported only by the benchmarks."""
