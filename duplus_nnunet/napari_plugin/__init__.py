"""The plug-in of napari: a window that opens an image once and answers for one target after another."""
