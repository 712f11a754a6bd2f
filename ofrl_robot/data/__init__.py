"""Episodes on disk: schema, crash-safe writer, validating reader, frame store, sampler."""
