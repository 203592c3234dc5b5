"""A table of windows that has something for the DICOM files beside it."""

TABLE = [
    {"modality": "CT", "body_part": "HEAD", "center": 40, "width": 80.5},
    {"modality": "CT", "center": -600, "width": 1500},
    {"modality": "CR", "use": "file"},
    {"use": "percentile"},
]
