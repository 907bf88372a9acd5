"""`python -m sim.carla_lite`."""

import sys

from sim.carla_lite.server import main

sys.exit(main())
