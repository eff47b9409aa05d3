"""Simulations of whole rollouts, by which promises are checked."""
