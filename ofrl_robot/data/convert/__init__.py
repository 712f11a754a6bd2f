"""Readers of other projects' files. Nothing that lies in such a file is ever executed."""
