"""Feedback, the true labels of predictions: store.py writes them, labels.py reads their counts."""
