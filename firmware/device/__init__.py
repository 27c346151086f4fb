"""Runs under MicroPython too; imports nothing of ours."""
