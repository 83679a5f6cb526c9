"""The operator: which sealed version each serving pod should have live, decided and ordered."""
