"""Trials of `HPOTrialManager` on this machine: in this process, or in processes of their own."""
