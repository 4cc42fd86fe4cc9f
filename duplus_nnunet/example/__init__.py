"""The shipped example: a small trained model of generated bodies, and the images that it is tried on."""
