"""Other systems' protocols: each is translated to a batch for the prediction pipeline."""
