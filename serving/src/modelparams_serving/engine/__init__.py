"""The serving process: two resident versions at most, one of them current, and a Unix socket for the agent's orders."""
