"""How good the answers of a span of time were: as known, as expected, and beside what."""
