"""Makes models: checkpoints, exports to engines, the registry, the starter versions."""
