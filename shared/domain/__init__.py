"""Values and rules: studies, spaces, trials, leases, states, scores, errors. No I/O."""
