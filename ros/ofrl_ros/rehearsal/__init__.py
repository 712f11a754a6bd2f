"""Rehearse faults over the real nodes, and measure how long it takes until the arm is stopped."""
