"""pSp: an encoder into the extended latent space W+ of StyleGAN2, and StyleGAN2 itself.

Richardson et al., "Encoding in Style: a StyleGAN Encoder for Image-to-Image Translation", CVPR
2021; Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020.
"""
