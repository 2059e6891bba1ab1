"""The clients API of olimac.link."""

__version__ = "0.1.0"
