"""CR-FIQA: a recogniser that learns how classifiable each of its training images is. training/trainer has the loop."""
