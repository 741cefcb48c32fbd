"""Networks shared by methods, as pure Flax modules without I/O or configuration."""

from step_jax.models.features import FEATURE_NETS, VGG16, VGG19, AlexNet, FeatureNet, SqueezeNet11

__all__ = ['AlexNet', 'FEATURE_NETS', 'FeatureNet', 'SqueezeNet11', 'VGG16', 'VGG19']
