"""DICOM files to grey levels and to boxes, and derived DICOM files."""
