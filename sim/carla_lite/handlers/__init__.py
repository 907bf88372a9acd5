"""Request handlers: one function per call of the CARLA protocol, one module per subject."""
