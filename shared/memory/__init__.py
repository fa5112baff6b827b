"""Memory: limits and readings of machine, cgroups, processes and GPUs, and the policy over them. And usable cores."""
