"""Chains to instructions to shards: the data that the training side reads."""
