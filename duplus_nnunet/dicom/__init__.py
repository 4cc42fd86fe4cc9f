"""DICOM: series become images, and predicted masks become segmentations and structure sets that refer to them."""
