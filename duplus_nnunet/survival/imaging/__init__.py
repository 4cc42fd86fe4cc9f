"""Image features of a segmentation network, and the file that stores them."""
