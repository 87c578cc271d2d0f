"""How people are told of alarms: what a message says, and the routes that carry it (webhook, Slack, e-mail).

message   notices -> what people read, with an id by which a message that comes twice is known
routes    which routes the settings declare; what may go wrong on them: Delayed (again later) or Undeliverable (never)
hooks     by HTTP: Standard Webhooks, and what Slack and those compatible with it take
mail      by SMTP
"""
