"""DICOM series of a phantom with oddities of scanners and archives, written by pydicom."""

import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT, MR, PET = (f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("2", "4", "128"))
ENHANCED_CT, ENHANCED_PET = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.130"
SUPINE, PRONE, FEET_FIRST = (1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0), (-1, 0, 0, 0, 1, 0)
CORONAL, SAGITTAL = (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)
NAMES = {
    "PatientName": "Doe^Jane",
    "PatientID": "PID12345",
    "PatientBirthDate": "19700102",
    "AccessionNumber": "ACC77",
}


def turn(directions, degrees=(12, -9, 20)):
    """Turn directions about the three axes, one after another."""
    for axis, angle in enumerate(np.radians(degrees)):
        first, second = (other for other in range(3) if other != axis)
        matrix = np.eye(3)
        matrix[first, first] = matrix[second, second] = np.cos(angle)
        matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
        directions = np.ravel(np.reshape(directions, (2, 3)) @ matrix.T)
    return directions


def make_stored(shape=(6, 9, 8), seed=0):
    """Make stored values, whole numbers of 12 bits."""
    return np.random.default_rng(seed).integers(0, 2000, shape).astype(np.int16)


def make_slices(stored, *, directions=SUPINE, spacing=(2.5, 0.9, 0.7), origin=(-30.25, 12.5, 101.0), sop=CT, **values):
    """Make one data set for each slice (slices, rows, columns), along the normal of `directions`."""
    normal = np.cross(directions[:3], directions[3:])
    modality = {CT: "CT", MR: "MR", PET: "PT"}.get(sop, "NM")
    made = []
    shared = {"SeriesInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid(), "Modality": modality,
              "FrameOfReferenceUID": generate_uid(), "RescaleSlope": 1, "RescaleIntercept": -1024,
              "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "SeriesDescription": "Thin axial"}  # fmt: skip
    for index, plane in enumerate(stored):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID, one.SOPInstanceUID, one.InstanceNumber = sop, generate_uid(), len(stored) - index
        one.Rows, one.Columns = plane.shape
        one.PixelSpacing = [spacing[1], spacing[2]]
        one.ImageOrientationPatient = [round(float(value), 8) for value in directions]
        one.ImagePositionPatient = [round(float(v), 6) for v in np.array(origin) + normal * index * spacing[0]]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.PixelData = np.ascontiguousarray(plane).astype("<i2").tobytes()
        for name, value in {**NAMES, **shared, **values}.items():
            if value is not None:
                setattr(one, name, value)
        made.append(one)
    return made


def save(folder, slices):
    """Save data sets under names whose order says nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, one in enumerate(slices):
        one.save_as(folder / f"IM{(index * 37) % 101:04d}", enforce_file_format=True)
    return folder


def make_agent(dose=3.7e8, half_life=6586.2, **values):
    """Make the item that describes the injection."""
    agent = Dataset()
    agent.RadionuclideTotalDose, agent.RadionuclideHalfLife = dose, half_life
    for name, value in values.items():
        setattr(agent, name, value)
    return Sequence([agent])


def make_pet_values(**values):
    """Make the attributes of a PET series of a patient of 70 kg, injected with 370 MBq an hour before."""
    agent = values.pop("agent", make_agent(RadiopharmaceuticalStartTime="090000"))
    return {
        "Units": "BQML", "DecayCorrection": "START", "CorrectedImage": ["ATTN", "DECY", "SCAT"], "PatientWeight": 70,
        "SeriesDate": "20200304", "SeriesTime": "100000", "AcquisitionDate": "20200304", "AcquisitionTime": "100000",
        "RescaleIntercept": 0, "RadiopharmaceuticalInformationSequence": agent, **values,
    }  # fmt: skip


def make_enhanced(slices, sop=ENHANCED_CT):
    """Join data sets of slices into one multi-frame data set, its frames in a mixed order."""
    whole, order = Dataset(), np.random.default_rng(1).permutation(len(slices))
    whole.update(slices[0])
    whole.file_meta = slices[0].file_meta
    whole.SOPClassUID, whole.NumberOfFrames = sop, len(slices)
    shared, frames = Dataset(), []
    measures, direction = Dataset(), Dataset()
    measures.PixelSpacing = slices[0].PixelSpacing
    direction.ImageOrientationPatient = slices[0].ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([direction])
    for index in order:
        frame, place, rescale = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = slices[index].ImagePositionPatient
        rescale.RescaleSlope, rescale.RescaleIntercept = slices[index].RescaleSlope, slices[index].RescaleIntercept
        frame.PlanePositionSequence = Sequence([place])
        frame.PixelValueTransformationSequence = Sequence([rescale])
        frames.append(frame)
    whole.SharedFunctionalGroupsSequence = Sequence([shared])
    whole.PerFrameFunctionalGroupsSequence = Sequence(frames)
    whole.PixelData = b"".join(slices[index].PixelData for index in order)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(whole, name)
    return whole


def compress(slices, syntax):
    """Compress data sets without losses."""
    for one in slices:
        one.compress(syntax, generate_instance_uid=False)
    return slices


def expect_affine(directions, spacing, origin):
    """Return what an affine from (slice, row, column) to RAS must be."""
    directions = np.asarray(directions, float)
    affine = np.eye(4)
    affine[:3, 0] = np.cross(directions[:3], directions[3:]) * spacing[0]
    affine[:3, 1], affine[:3, 2] = directions[3:] * spacing[1], directions[:3] * spacing[2]
    affine[:3, 3] = origin
    return np.diag([-1.0, -1, 1, 1]) @ affine


def write_export(images, folder):
    """Write the images of `duplus example` as an archive exports them: a series each, under names that say nothing.

    CT has whole HU, MR a slope, and PET is in Bq/ml with a slope a slice; the descriptions name the patient.

    Args:
        images: Folder of the images.
        folder: Folder to write to.

    Returns:
        Series instance UID of each image.
    """
    uids = {}
    for number, (case, sop) in enumerate({"ct": CT, "mr": MR, "pet": PET}.items()):
        image = nibabel.load(images / f"{case}_0000.nii.gz")
        values, affine = np.asarray(image.dataobj, float).transpose(2, 1, 0), np.diag([-1.0, -1, 1, 1]) @ image.affine
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        columns, rows, _ = (affine[:3, :3] / spacing).T
        more = {"SeriesDescription": f"{case} Doe^Jane"}
        if sop == PET:
            more |= make_pet_values()
            values = values / (70000 / (370e6 * 0.5 ** (3600 / 6586.2)))
        slopes = np.ones(len(values)) if sop == CT else np.maximum(values.max(axis=(1, 2)), 1e-6) / 30000
        more["RescaleIntercept"] = 0
        slices = make_slices(
            np.rint(values / slopes[:, None, None]), directions=(*columns, *rows), spacing=spacing[::-1],
            origin=affine[:3, 3], sop=sop, **more,
        )  # fmt: skip
        for one, slope in zip(slices, slopes, strict=True):
            one.RescaleSlope = f"{slope:.10g}"
        save(folder / f"DOE_JANE_{number}", slices)
        uids[case] = slices[0].SeriesInstanceUID
    return uids
