"""What users of the pods would see: requests at fixed instants, each answer checked against the version it names."""
