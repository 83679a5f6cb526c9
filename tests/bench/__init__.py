"""Figures as ratios within one run, beside what a user would pick instead: `make bench`."""
