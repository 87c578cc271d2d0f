"""What is said of many values: counts and sums that add exactly over partitions, and the tests and measures that read them."""
