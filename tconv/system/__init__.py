"""Files, memory, processors and locks: what tconv asks of the operating system."""
