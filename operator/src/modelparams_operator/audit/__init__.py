"""What the API server's audit log says: what was served, by whose will, what was denied, what is missing."""
