"""The expert profiler: how late advice comes, and what its lateness does to a car (`lgdrl profile`)."""
