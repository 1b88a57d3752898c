"""SSH keys: public ones and their fingerprints, private ones, signatures and key files.

Only `keys.public` and `keys.private` are needed to talk to an agent, and neither imports `cryptography`.
"""
