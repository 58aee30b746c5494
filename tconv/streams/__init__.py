"""Streams: networks along time piece by piece, with the bits of the whole."""
