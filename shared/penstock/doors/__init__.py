"""Doors: who may ask what of the HTTP servers, how often, and who was turned away.

scopes   which scope a request needs                          keys    API keys, kept as HMAC under a pepper
tokens   JSON Web Tokens of an identity provider              rates   how often a key may ask
door     the ASGI middleware that asks all of them            access  what an operator says of it: off, on, or refused to start
"""
