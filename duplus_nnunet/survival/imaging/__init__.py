"""Image features of a segmentation network, and the files in which they are stored."""
