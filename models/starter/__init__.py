"""Starter models: DistilBERT-architecture sentiment classifiers rebuilt from pip packages."""
