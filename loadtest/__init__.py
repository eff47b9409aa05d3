"""Load on a served Bento, on this machine unless another one is named."""
