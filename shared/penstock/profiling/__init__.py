"""Profiling: what is in columns, as values that merge over batches, partitions and days."""
