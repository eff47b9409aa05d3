"""The runner services, the classifier inside them, its engines, and the client that calls them."""
