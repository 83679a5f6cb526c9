"""Sealed, signed model parameters: what the publisher, the operator and the serving pods agree on."""
