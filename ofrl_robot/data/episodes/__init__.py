"""Episode files: format, writer, reader, recovery."""
