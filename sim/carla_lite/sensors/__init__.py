"""What sensors send, computed only for streams that are read, as often as `sensor_tick` says."""
