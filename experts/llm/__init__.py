"""The language-model expert: prompt, client, parser, cache, budget, and a small local model behind the same door."""
