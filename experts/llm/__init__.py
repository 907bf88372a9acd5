"""The client side of the language-model expert: prompt, client, parser, cache, budget. It knows no server."""
