"""`modelparams status`: what rollouts, versions and pods say of themselves, for people and for scripts."""
