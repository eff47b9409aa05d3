"""Proof: the clients of KServe, MLServer, MLflow and SageMaker understand the service.

Each is what its package has, in an environment of its own.
"""
