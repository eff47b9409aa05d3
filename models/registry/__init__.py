"""The BentoML model store as a registry: what `python -m scripts.models` does with it."""
