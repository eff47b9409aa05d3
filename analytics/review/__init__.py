"""What to label next: draw.py draws predictions with known probabilities, queue.py tells them."""
