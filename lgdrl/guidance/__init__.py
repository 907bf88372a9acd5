"""How an expert takes part in learning: records, strategies and their parts, the advisor, and LGDRL itself."""
