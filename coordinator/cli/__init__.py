"""The command line, a file for each group of commands. A command parses, calls and prints; it decides nothing."""
