"""Rule experts: the slot-aligning rule (`provider`) and the four published thresholds (`thresholds`)."""
