"""Complete projects on real data, run by the tests: flights (the flagship) and electricity."""
