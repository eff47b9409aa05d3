"""`make image-check`: what a built image holds, and how it serves."""
