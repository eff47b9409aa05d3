"""The test suite: unit, integration (real PostgreSQL and Redis), served (a real `bentoml serve`)."""
