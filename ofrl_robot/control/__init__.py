"""Pure control code: ticks, limits, arbitration, pacing. No I/O, no clock of its own."""
