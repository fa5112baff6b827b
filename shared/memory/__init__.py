"""Memory: limits and readings of machine, cgroups, processes and GPUs, and the policy of the guard."""
