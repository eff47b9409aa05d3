"""Builds the production engines of a checkpoint when it is saved; serving never imports it."""
