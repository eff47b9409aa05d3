"""Serving a model: runner services, engines, batching, and the API's client."""
