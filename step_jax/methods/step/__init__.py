"""StEP (CVPR 2021): style encoder pre-trained on triplets, generator, fine-tuning, IMLE mapper."""
