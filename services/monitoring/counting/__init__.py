"""What a partition counts of answers and outcomes; it adds over partitions and windows."""
