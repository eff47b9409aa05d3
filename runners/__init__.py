"""Serving a model: the runner services, their engines and batching, and the API's client."""
