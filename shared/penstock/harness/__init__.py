"""Policies tried on what has been: how they are named, what is made of a run of each, and the page that shows them."""
