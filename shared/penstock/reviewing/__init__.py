"""Reviewing: what people say of answers, and which answers wait for them. What a project declares is `penstock.review`.

feedback    what somebody says, on its way to the log
panel       what waits for reviewers, and how far they agree
"""
