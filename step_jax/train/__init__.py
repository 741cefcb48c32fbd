"""How any method runs: the loop, checkpoints, devices, what is written."""
