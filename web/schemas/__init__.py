"""Wire models: what clients send and what they get."""
