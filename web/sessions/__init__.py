"""Sessions as the web has them: how one begins, what carries it, and how a gateway hears of its end."""
