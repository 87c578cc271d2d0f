"""Scoring: artefacts opened, and rows answered by them, alike on the stream, over HTTP, in bulk and in a user's own process."""
