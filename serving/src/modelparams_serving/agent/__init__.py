"""The half of a serving pod that has the identity, the credentials and the keys, and no model."""
