"""InsightFace's RecordIO format (.rec and .idx) without MXNet. Other formats lie beside this folder."""

from data_manifests.recordio.record_file import RecordFile

__all__ = ["RecordFile"]
