"""StyleGAN2 and pSp in PyTorch, to measure against; nothing else imports them."""
