from step_jax.weights.step_tf import from_step_tf
