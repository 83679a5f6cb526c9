"""What people do to rollouts and versions: each verb changes a spec, decided here, written as themselves."""
