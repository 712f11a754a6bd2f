"""Pure control code: what is sent, what limits it, who may command. No I/O, no clock of its own."""
