"""Runtime: how a service runs: lanes shared out by partitions, control loops, what they publish, wait for and report."""
