"""StyleGAN2 and pSp in PyTorch, imported only by benchmarks."""
