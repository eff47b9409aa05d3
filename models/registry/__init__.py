"""The BentoML model store as a registry, for `sentiment models`."""
