"""Momento, where chunks wait between extract and load."""
