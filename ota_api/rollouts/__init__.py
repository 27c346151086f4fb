"""Rollouts: who is offered a release, how it goes on, when it stops."""
