"""Imported first by every node: finds ``wires``, and keeps Ctrl-C during slow imports quiet.

Importing torch or scipy takes seconds; until ``rospy.init_node`` installs its own handler, SIGINT
simply ends the process instead of printing a traceback from the middle of an import.
"""

import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
signal.signal(signal.SIGINT, signal.SIG_DFL)
