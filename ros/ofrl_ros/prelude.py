"""Keep Ctrl-C quiet while a node imports; every node imports this first.

Importing torch or scipy takes seconds. Until ``rospy.init_node`` installs its own handler, SIGINT
simply ends the process instead of printing a traceback from the middle of an import.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)
