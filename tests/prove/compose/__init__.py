"""Proof: a real dockerd starts every service of docker-compose.yml, and the data stays."""
