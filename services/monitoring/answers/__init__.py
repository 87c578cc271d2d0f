"""Answers that await their truth, and labels that await their answer."""
