"""The expert profiler: latency of an expert, and what it does to a car (`lgdrl profile`)."""
