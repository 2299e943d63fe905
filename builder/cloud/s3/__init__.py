"""S3, or anything that answers as S3 does: AWS, radosgw, Walrus, the sandbox.

`S3` makes single calls; `upload.py` and `download.py` move what is larger than one call, in parallel and so that a
killed run goes on where it stopped. Every call carries Content-MD5, the only check of a body that every S3 of the last
fifteen years makes; what the server answers is held against it wherever it answers anything.
"""

from builder.cloud.s3.client import S3
from builder.cloud.s3.conditional import Conditional
from builder.cloud.s3.download import Downloaded, Origin, download
from builder.cloud.s3.records import ObjectRecord, PartRecord, UploadRecord
from builder.cloud.s3.source import FileSlice
from builder.cloud.s3.upload import Target, upload_file, upload_stream

__all__ = [
    "S3",
    "Conditional",
    "Downloaded",
    "FileSlice",
    "ObjectRecord",
    "Origin",
    "PartRecord",
    "Target",
    "UploadRecord",
    "download",
    "upload_file",
    "upload_stream",
]
