"""Proof: a real dockerd starts docker-compose.yml, with what COMPOSE_PROFILES adds; data stays."""
