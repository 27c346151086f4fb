"""Contracts shared by two or more of the other packages; imports none of them."""

__version__ = "0.1.0"
