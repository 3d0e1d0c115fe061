"""Pixels: decoding, hashes, measurements, and the simulated generators of the demo."""
