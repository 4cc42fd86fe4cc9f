"""Small DICOM series, written by pydicom where tests need them."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

AXIAL = (1, 0, 0, 0, 1, 0)
CORONAL = (1, 0, 0, 0, 0, -1)
_TURN = np.deg2rad(20)
OBLIQUE = (np.cos(_TURN), np.sin(_TURN), 0, 0, 0, -1)
PATIENT = {"PatientName": "Doe^Jane", "PatientID": "12345", "PatientBirthDate": "19700102", "PatientSex": "F",
           "AccessionNumber": "ACC77", "StudyID": "S1", "StudyDate": "20200304", "StudyTime": "101112",
           "ReferringPhysicianName": "Ref^Doc"}  # fmt: skip


def write_series(folder, volume, *, direction=AXIAL, spacing=(1.5, 0.8, 0.8), origin=(-10.0, -20.0, 30.0), **more):
    """Write an image (slices, rows, columns) as one file a slice, named in an order that says nothing.

    Args:
        folder: Folder of the files.
        volume: Whole numbers, (slices, rows, columns).
        direction: ImageOrientationPatient.
        spacing: Distance of slices, rows and columns in mm; of slices below 0, they run against the normal.
        origin: Centre of the first voxel, in mm (LPS).
        more: Values of further attributes; None leaves an attribute out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(direction[:3], direction[3:])
    shared = {"SeriesInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid(),
              "FrameOfReferenceUID": generate_uid(), "Modality": "CT", **PATIENT, **more}  # fmt: skip
    files = []
    for index, plane in enumerate(np.asarray(volume, np.int16)):
        header = pydicom.Dataset()
        for keyword, value in shared.items():
            if value is not None:
                setattr(header, keyword, value)
        header.SOPClassUID = MRImageStorage if header.Modality == "MR" else CTImageStorage
        header.SOPInstanceUID, header.InstanceNumber = generate_uid(), index + 1
        header.ImageOrientationPatient = [f"{number:.10f}" for number in direction]
        place = np.array(origin) + normal * index * spacing[0]
        header.ImagePositionPatient = [f"{number:.6f}" for number in place]
        header.PixelSpacing, header.SliceThickness = [spacing[1], spacing[2]], abs(spacing[0])
        header.Rows, header.Columns = plane.shape
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated = header.BitsStored = 16
        header.HighBit, header.PixelRepresentation = 15, 1
        header.RescaleSlope, header.RescaleIntercept, header.ImageType = 1, 0, ["ORIGINAL", "PRIMARY", "AXIAL"]
        header.PixelData = plane.tobytes()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = Path(folder) / f"{(index * 7) % 101:03d}.dcm"
        header.save_as(file, enforce_file_format=True)
        files.append(file)
    return sorted(files)


def make_masks(shape, seed=0):
    """Make masks with what is hard for contours: a hole, islands, single voxels, a border, an empty one, an overlap."""
    rows, columns = shape[1:]
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns]
    distance = np.hypot(y - rows / 2, x - columns / 2)
    ring = np.zeros(shape, bool)
    ring[1:-1] = (distance < min(rows, columns) / 2.2) & (distance > 2)
    ring[2, rows // 2, columns // 2] = True  # an island in the hole
    corner = np.zeros(shape, bool)
    corner[:, :3, :4] = True  # touches the border in all slices
    voxels = np.zeros(shape, bool)
    voxels[0, -1, -1] = voxels[-1, 0, 0] = voxels[1, 4, 5] = True
    noise = generator.random(shape) < 0.4
    return {"liver": ring, "left kidney": corner, "spleen": voxels, "kidney cyst": noise, "stomach": ring & False}
