"""Small language models that drive: a closed vocabulary, a transformer in plain torch, teachers of tokens."""
