"""Rollouts: what their devices send is measured, and the OTA server asked to decide."""
