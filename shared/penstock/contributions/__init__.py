"""Contributions: how much each input moved one answer away from the usual answer. Shapley values, see `explainer`."""
