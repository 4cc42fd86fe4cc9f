"""Shows an opened image in a notebook: slices, 3D and masks in the browser, and a line that takes questions."""
