"""The services that `coordinator start` runs itself when no addresses are set: PostgreSQL and Redis.

Each is an ordinary server binary, run as a direct child on loopback with a random password, that dies with its owner.
`stack` decides when they run; this package knows how.
"""
