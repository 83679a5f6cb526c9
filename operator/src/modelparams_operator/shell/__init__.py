"""All effects of the operator: the API server, the object store, time, logs and metrics."""
