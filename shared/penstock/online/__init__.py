"""Online: reading features as of a moment, from Redis in your own process or over HTTP."""
