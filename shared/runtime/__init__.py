"""What a process needs to run: settings, addresses, secrets, logs, the broker, the data directory."""
