"""Proof: the image for arm64, emulated on x86, answers as recorded, without oneDNN."""
