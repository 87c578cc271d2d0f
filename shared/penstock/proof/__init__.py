"""Proof: served values and whole runs recomputed from what is archived, by other code than the stream uses."""
