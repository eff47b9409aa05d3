"""HTTP around the Bento APIs: middleware, the GET endpoints, and the OpenAPI document."""
