"""Load on a served Bento; loopback only."""
