"""A policy for robots elsewhere: the server, its messages and batches, and the two sides that ask it."""
