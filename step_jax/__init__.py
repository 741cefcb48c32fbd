"""step_jax: multi-modal image-to-image translation in JAX."""

__version__ = '0.1.0'
