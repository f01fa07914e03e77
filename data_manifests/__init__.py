"""What the data and the weights are, and how they are read: the ground the other packages stand on."""
