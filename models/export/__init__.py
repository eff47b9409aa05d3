"""Builds the production engines of a checkpoint when it is saved; no service runs any of it."""
