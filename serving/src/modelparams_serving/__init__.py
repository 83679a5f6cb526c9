"""What runs inside a serving pod: the agent, the engine, and the swap as a library."""
