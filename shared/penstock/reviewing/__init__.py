"""Reviewing: what people say of answers, and which answers wait for them. What a project declares is `penstock.review`.

feedback    what somebody says, on its way to the log
word        what people may say is true, by the kind of label
panel       what waits for reviewers, and how far they agree
"""
