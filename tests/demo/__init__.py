"""The main job on real input, as a story that fails when any of it does not happen: `make demo`."""
