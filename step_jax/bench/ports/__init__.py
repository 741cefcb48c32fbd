"""PyTorch ports to compare with; imported by the benchmarks alone."""
