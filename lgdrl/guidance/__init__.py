"""How an expert takes part in learning: the hook contract, gates, the expert desk, and LGDRL itself."""
