"""Networks piece by piece: the cells that each value needs, and the graph that computes a piece."""
