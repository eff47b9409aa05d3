"""Tests: unit, integration (real PostgreSQL and Redis), served (a real `bentoml serve`)."""
