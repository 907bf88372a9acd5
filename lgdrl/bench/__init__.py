"""`lgdrl bench`: simulators side by side (`simulators`), and learners (`learners`), each interleaved in one run."""
