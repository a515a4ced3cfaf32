"""Training: the plan, the loop, checkpoints, metrics, and the function that composes them."""
