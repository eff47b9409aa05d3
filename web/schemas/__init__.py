"""Wire models: what clients send and what they get; analytics declares its own replies."""
