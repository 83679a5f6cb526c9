"""Every rule of the operator, as pure functions of plain values: no I/O, no clock, no logging, no framework."""
