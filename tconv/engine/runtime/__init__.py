"""Threads, jobs and reordered operands."""
