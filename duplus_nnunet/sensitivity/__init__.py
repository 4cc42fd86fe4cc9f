"""How much the wording of a prompt changes the segmentation."""
