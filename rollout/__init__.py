"""The rollout of a model version: policies, bucketing, guardrails and shadow traffic."""
