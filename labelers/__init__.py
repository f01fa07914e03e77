"""Pure measures of face images: arrays in, named columns out."""
