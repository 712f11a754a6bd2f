"""Teleoperation devices: what sits in the operator's seat."""
