"""The episode file: its format, its recorder and its reader."""
