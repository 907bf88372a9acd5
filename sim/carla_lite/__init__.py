"""A headless server that speaks the CARLA protocol: kinematic cars on OpenDRIVE roads, for the real client."""
