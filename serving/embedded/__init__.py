"""`make serve`: the launcher and the private databases. Not in the image."""
