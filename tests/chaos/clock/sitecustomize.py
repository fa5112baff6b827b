"""On the import path of one node: its wall clock is wrong by TEST_CLOCK_OFF_S seconds, as a machine's without NTP."""

import os
import time

_right, _off_s = time.time, float(os.environ["TEST_CLOCK_OFF_S"])
time.time = lambda: _right() + _off_s
