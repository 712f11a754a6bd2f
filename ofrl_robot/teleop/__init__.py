"""Teleoperation devices. The protocol and the table of names are in ``device.py``."""
