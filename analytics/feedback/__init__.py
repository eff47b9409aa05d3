"""True labels: stored feedback, and what labels say of predictions and comparisons."""
