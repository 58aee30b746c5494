"""Channel-vectorised algorithm: the lanes of a vector are output channels."""
