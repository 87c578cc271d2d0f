"""Windows: the state of every entity as rows of words, the loop that turns events into features, and what is stored of them."""
