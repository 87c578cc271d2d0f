"""Comparison: two tables, column by column: has what is in them drifted, by how much, and how surely."""
