"""Proof: behind a real nginx, as docs/operations.md has it, limits count nginx's clients."""
