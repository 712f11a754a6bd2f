"""Readers and writers of other projects' file formats. No content of a file is ever executed."""
